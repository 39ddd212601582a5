//! The programs agents are made of must run inside: runtimes, compilers, git.

use outpost_sandbox::{Limits, Payload, Sandbox, SandboxSpec};
use tokio::io::AsyncReadExt as _;

use crate::Bed;

/// Name, script, expected output.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("bash", "bash -c 'a=(1 2); echo ${#a[@]} <(true) | cut -c1'", "2\n"),
    (
        "git",
        "cd && git init -q r && cd r && echo x > f && git add f && git -c user.name=a -c user.email=a@b commit -qm m && git log --format=%s",
        "m\n",
    ),
    (
        "node",
        "node -e 'const {Worker}=require(\"worker_threads\");new Worker(\"require(\\\"worker_threads\\\").parentPort.postMessage(6*7)\",{eval:true}).on(\"message\",console.log)'",
        "42\n",
    ),
    (
        "python3",
        "python3 -c 'import threading,subprocess,socket,multiprocessing as m;print(subprocess.run([\"echo\",\"py\"],capture_output=True).stdout.decode().strip(), m.get_context(\"fork\").Pool(2).map(abs,[-1,-2]))'",
        "py [1, 2]\n",
    ),
    ("gcc", "cd && echo 'int main(){return 7;}' > a.c && gcc a.c -o a && ./a; echo $?", "7\n"),
    ("perl", "perl -e 'print \"perl\\n\"'", "perl\n"),
    ("script", "script -qec 'tty | cut -c1-9' /dev/null < /dev/null | tr -d '\\r'", "/dev/pts/\n"),
];

#[tokio::test(flavor = "multi_thread")]
async fn run_inside() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    for (name, script, want) in PROGRAMS {
        if !["/usr/bin", "/usr/local/bin"]
            .iter()
            .any(|dir| std::path::Path::new(dir).join(name).exists())
        {
            println!("SKIPPED {name}: not installed in /usr");
            continue;
        }
        let spec = SandboxSpec {
            limits: Limits { cpu_millis: 2000, ..Limits::default() },
            ..SandboxSpec::new(*name)
        };
        let parked = sandbox.create(spec).await.unwrap();
        let mut running = parked.start(Payload::new(["sh", "-c", script])).await.unwrap();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        let (mut out, mut err) = (running.take_stdout().unwrap(), running.take_stderr().unwrap());
        let (a, b) = tokio::join!(out.read_to_string(&mut stdout), err.read_to_string(&mut stderr));
        a.and(b).unwrap();
        assert_eq!(stdout, *want, "{name}: {stderr} {:?}", running.wait().await);
        running.release().await.unwrap();
    }
    sandbox.shut_down().await.unwrap();
}

/// Where `program` says its installation is, if it is outside of /usr and so must be bound.
fn prefix_of(program: &str, question: &[&str]) -> Option<String> {
    let output = std::process::Command::new(program).args(question).output().ok()?;
    let prefix = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && prefix.starts_with('/') && prefix != "/usr").then_some(prefix)
}

/// Runtimes kept in a home directory, as version managers do, work at the same path inside by a read-only bind, even
/// if the home itself is closed to everybody else.
#[tokio::test(flavor = "multi_thread")]
async fn run_from_a_bound_prefix() {
    let bed = Bed::new();
    let sandbox = bed.sandbox();
    let rust = "cd && echo 'fn main(){println!(\"{}\", std::thread::spawn(|| 6*7).join().unwrap())}' > a.rs && $0/bin/rustc a.rs && ./a";
    for (program, question, script, want) in [
        (
            "python3",
            &["-c", "import sys; print(sys.base_prefix)"][..],
            "$0/bin/python3 -c 'import ssl, sqlite3; print(1)'",
            "1\n",
        ),
        ("rustc", &["--print", "sysroot"][..], rust, "42\n"),
    ] {
        let Some(prefix) = prefix_of(program, question) else {
            println!("SKIPPED {program}: not installed outside of /usr");
            continue;
        };
        let spec = SandboxSpec::new(program).read_only(&prefix, &prefix);
        let parked = sandbox.create(spec).await.unwrap();
        let mut running = parked.start(Payload::new(["sh", "-c", script, &prefix])).await.unwrap();
        let (mut stdout, mut stderr) = (String::new(), String::new());
        running.take_stdout().unwrap().read_to_string(&mut stdout).await.unwrap();
        running.take_stderr().unwrap().read_to_string(&mut stderr).await.unwrap();
        assert_eq!(stdout, want, "{program}: {stderr} {:?}", running.wait().await);
        running.release().await.unwrap();
    }
    sandbox.shut_down().await.unwrap();
}
