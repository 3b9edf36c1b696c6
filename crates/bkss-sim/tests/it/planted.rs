//! The bugs that the world must find can still be planted.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Whether a patch applies to the project as it is.
fn applies(patch: &str) -> bool {
    let mut git = Command::new("git")
        .args(["apply", "--check", "-"])
        .current_dir(root())
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    git.stdin.take().unwrap().write_all(patch.as_bytes()).unwrap();
    git.wait().unwrap().success()
}

#[test]
fn every_planted_bug_applies_and_has_its_seed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("planted");
    let mut patches = BTreeSet::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            let patch = fs::read_to_string(&path).unwrap();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            assert!(applies(&patch), "{name}");
            let context = patch.lines().find(|line| line.starts_with("  ")).unwrap();
            let altered = patch.replacen(context, "  nothing of the project", 1);
            assert!(!applies(&altered), "{name} applies to anything");
            patches.insert(name);
        }
    }
    let listed = fs::read_to_string(folder.join("bugs.txt")).unwrap();
    let listed: BTreeSet<_> =
        listed.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect();
    assert_eq!(listed, patches, "bugs.txt names the patches");
}
