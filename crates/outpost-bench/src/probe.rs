//! What machine a figure was measured on: without it a figure says nothing.

use serde::Serialize;

use crate::floor::FloorFigures;

/// Above this one-minute load average at the start, figures are marked: others used the machine.
const LOAD_AVERAGE_MAX: f64 = 1.5;

/// The machine at the start of a bench.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Version of Outpost.
    version: &'static str,
    /// Processors this process may use.
    cores: usize,
    /// One-minute load average at the start.
    load_average: f64,
    /// Others used the machine: do not compare these figures.
    disturbed: bool,
    /// Release of the kernel.
    kernel: String,
    /// File system of the data.
    file_system: String,
}

impl Probe {
    /// Looks at the machine; `dir` is where the data will be.
    pub(crate) fn now(dir: &std::path::Path, version: &'static str) -> Self {
        let load_average = std::fs::read_to_string("/proc/loadavg")
            .ok()
            .and_then(|text| text.split(' ').next()?.parse().ok())
            .unwrap_or(f64::NAN);
        Self {
            version,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_average,
            disturbed: load_average > LOAD_AVERAGE_MAX,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            file_system: file_system(dir).unwrap_or_else(|| "unknown".to_owned()),
        }
    }

    /// Two or three lines for a person.
    #[must_use]
    pub fn text(&self, floor: &FloorFigures) -> String {
        let mut text = format!(
            "outpost {}, {} cores, load {:.2}, kernel {}, {}\n\
             fdatasync of 4 KiB: overwrite {:.3} / {:.3} ms, append {:.3} / {:.3} ms; \
             posix_spawn {:.3} / {:.3} ms (median / p99)\n",
            self.version,
            self.cores,
            self.load_average,
            self.kernel,
            self.file_system,
            floor.overwrite_p50,
            floor.overwrite_p99,
            floor.append_p50,
            floor.append_p99,
            floor.exec_p50,
            floor.exec_p99,
        );
        if self.disturbed {
            text.push_str(&format!(
                "DISTURBED: the load average was over {LOAD_AVERAGE_MAX} at the start; \
                 do not compare these figures\n"
            ));
        }
        text
    }
}

/// Type of the file system a directory is on: the longest mount point that is a prefix of it.
fn file_system(dir: &std::path::Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let fitting = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        dir.starts_with(point).then(|| (point.len(), kind.to_owned()))
    });
    fitting.max_by_key(|(length, _)| *length).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_is_known() {
        let probe = Probe::now(std::path::Path::new("/proc"), "1");
        assert_eq!(probe.file_system, "proc");
        assert!(probe.cores >= 1 && probe.load_average >= 0.0 && !probe.kernel.is_empty());
    }
}
