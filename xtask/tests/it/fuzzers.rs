//! The bodies of the fuzzers on their committed corpus and on some mutations of it: what they found once
//! stays found, and they themselves stay correct, without a fuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use outpost_fuzz::{TARGETS, Target};

/// Mutated inputs of each target.
const MUTANTS: u64 = 300;
/// Most changes of one input.
const CHANGES_MAX: u64 = 4;
/// Largest corpus of one target, bytes.
const CORPUS_BYTES_MAX: usize = 40 * 1024;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The committed inputs of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs: Vec<(String, Vec<u8>)> = fs::read_dir(folder().join("corpus").join(target))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())
        })
        .collect();
    inputs.sort();
    inputs
}

/// Numbers that are the same in every run (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound.max(1) as u64).unwrap()
    }
}

/// One change: a byte, a piece taken out, doubled, or replaced by one of another input.
fn mutate(input: &mut Vec<u8>, other: &[u8], numbers: &mut Numbers) {
    const BYTES: &[u8] = b"\0\x01\x1b\n\r\"\\{}[]:,/.-%0\x7f\x80\x9b\xc3\xff";
    let at = numbers.below(input.len() + 1);
    let end = (at + numbers.below(16)).min(input.len());
    let from = numbers.below(other.len() + 1);
    let piece = &other[from..(from + numbers.below(64)).min(other.len())];
    match numbers.below(5) {
        0 if at < input.len() => input[at] = BYTES[numbers.below(BYTES.len())],
        1 => input.insert(at, BYTES[numbers.below(BYTES.len())]),
        2 => drop(input.drain(at..end)),
        3 => drop(input.splice(at..at, input[at..end].to_vec())),
        _ => drop(input.splice(at..end, piece.iter().copied())),
    }
}

fn check((name, holds): Target) {
    let inputs = corpus(name);
    let run = |input: &[u8], what: &str| {
        let ended = catch_unwind(AssertUnwindSafe(|| holds(input)));
        assert!(ended.is_ok(), "{name}: {what}: {:?}", String::from_utf8_lossy(input));
    };
    run(b"", "nothing");
    for (file, input) in &inputs {
        run(input, file);
    }
    for seed in 0..MUTANTS {
        let mut numbers = Numbers(seed);
        let (file, input) = &inputs[numbers.below(inputs.len())];
        let mut input = input.clone();
        for _ in 0..=numbers.below(CHANGES_MAX as usize) {
            let (_, other) = &inputs[numbers.below(inputs.len())];
            mutate(&mut input, other, &mut numbers);
        }
        run(&input, &format!("{file}, changed by {seed}"));
    }
}

/// Every second target, so that two cores share the work.
fn check_half(half: usize) {
    TARGETS.iter().skip(half).step_by(2).for_each(|target| check(*target));
}

#[test]
fn what_must_hold_holds_for_the_first_half_of_the_targets() {
    check_half(0);
}

#[test]
fn what_must_hold_holds_for_the_second_half_of_the_targets() {
    check_half(1);
}

#[test]
fn every_target_has_a_fuzzer_a_corpus_and_a_row_in_the_table() {
    let table = fs::read_to_string(folder().join("README.md")).unwrap();
    let named = |dir: &str| -> BTreeSet<String> {
        fs::read_dir(folder().join(dir))
            .unwrap()
            .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
            .collect()
    };
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(named("fuzz_targets"), targets);
    assert_eq!(named("corpus"), targets);
    assert!(named("dictionaries").is_subset(&targets));
    for target in targets {
        let bytes: usize = corpus(&target).iter().map(|(_, input)| input.len()).sum();
        assert!((1..=CORPUS_BYTES_MAX).contains(&bytes), "{target}: {bytes} bytes");
        assert!(table.contains(&format!("`{target}`")), "{target} is not in fuzz/README.md");
    }
}
