use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn corpus(name: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let listed = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn holds(name: &str, bytes: &[u8], what: &dyn Fn() -> String) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| hold(name, bytes))) {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        panic!("{name}: {}: {}", what(), text.unwrap_or_default());
    }
}

#[test]
fn every_law_has_a_fuzz_target_and_a_corpus_of_a_size_that_can_be_replayed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    for (name, _) in ALL {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
        let target = fs::read_to_string(root.join("fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(target.contains(&format!("\"{name}\"")), "{name}.rs has another law");
        let files = corpus(name);
        let size: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(
            (1..=300).contains(&files.len()) && size <= 400_000,
            "{name}: {} files, {size} bytes",
            files.len()
        );
    }
}

macro_rules! replayed {
    ($($name:ident)*) => {
        /// One test a law, so that they run beside each other.
        mod every_committed_input_holds {
            use super::*;

            $(#[test]
            fn $name() {
                for file in corpus(stringify!($name)) {
                    let bytes = fs::read(&file).unwrap();
                    holds(stringify!($name), &bytes, &|| file.display().to_string());
                }
            })*
        }

        #[test]
        fn every_law_is_replayed() {
            let replayed = [$(stringify!($name)),*];
            assert_eq!(ALL.iter().map(|(name, _)| *name).collect::<Vec<_>>(), replayed);
        }
    };
}

replayed! {
    request forwarded proxy_line link knocks netlink host events packet_log plans iptables configuration profile texts kept
}

/// An input of the corpus, of which a part is replaced.
fn changed(name: &str, which: &Index, at: &Index, cut: usize, with: &[u8]) -> Vec<u8> {
    let files = corpus(name);
    let mut bytes = fs::read(which.get(&files)).unwrap();
    let at = at.index(bytes.len() + 1);
    let end = (at + cut).min(bytes.len());
    bytes.splice(at..end, with.iter().copied());
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn laws_hold_for_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        for (name, _) in ALL {
            holds(name, &bytes, &|| format!("{bytes:?}"));
        }
    }

    #[test]
    fn laws_hold_for_what_is_near_to_inputs_of_the_corpus(
        which: Index, at: Index, cut in 0_usize..20, with in proptest::collection::vec(any::<u8>(), 0..20)
    ) {
        for (name, _) in ALL {
            let bytes = changed(name, &which, &at, cut, &with);
            holds(name, &bytes, &|| format!("{bytes:?}"));
        }
    }
}
