//! The corpora, replayed: what the fuzzer once found, and the seeds that it began with.

use std::path::Path;

#[test]
fn every_input_of_every_corpus_holds() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in wharf_fuzz::TARGETS {
        let mut inputs: Vec<_> = std::fs::read_dir(corpora.join(name))
            .unwrap_or_else(|error| panic!("no corpus of {name}: {error}"))
            .map(|entry| entry.unwrap().path())
            .collect();
        inputs.sort();
        assert!(inputs.len() >= 10, "{} inputs of {name}", inputs.len());
        for input in &inputs {
            let data = std::fs::read(input).unwrap();
            if let Err(broken) = std::panic::catch_unwind(|| target(&data)) {
                eprintln!("{name}: {}", input.display());
                std::panic::resume_unwind(broken);
            }
        }
        println!("{name}: {} inputs", inputs.len());
    }
}

#[test]
fn the_corpora_stay_small() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut bytes = 0;
    for (name, _) in wharf_fuzz::TARGETS {
        for entry in std::fs::read_dir(corpora.join(name)).unwrap() {
            bytes += entry.unwrap().metadata().unwrap().len();
        }
    }
    assert!(bytes <= 2 << 20, "{bytes} bytes");
}
