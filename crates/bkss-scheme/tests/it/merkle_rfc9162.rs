//! Inclusion proofs of RFC 9162 trees against those of transparency-dev.
//!
//! The folders of consistency proofs and of subtrees are not used: the scheme's trees never grow,
//! since chain and block fix their size, and no proof in it starts at an inner node.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bkss_scheme::{Digest, merkle};
use serde_json::Value;

use crate::shared::{base64, family, json};

#[test]
fn a_path_holds_exactly_if_the_vector_says_so() {
    let Some(folder) = family("rfc6962-merkle") else { return };
    let (mut files, mut accepted) = (Vec::new(), 0);
    json_files(&folder.join("inclusion"), &mut files);
    for file in &files {
        let vector = json(file);
        let holds = holds(&vector) == Some(true);
        assert_eq!(holds, !vector["wantErr"].as_bool().unwrap(), "{}", file.display());
        accepted += usize::from(holds);
    }
    assert!(files.len() >= 59, "{} inclusion proofs", files.len());
    assert!(accepted >= 4, "{accepted} of them accepted");
}

/// `None` for a hash that is not of 32 bytes: a [`Digest`] cannot be made of it.
fn holds(vector: &Value) -> Option<bool> {
    let digest = |value| base64(value).try_into().ok().map(Digest);
    let siblings: Option<Vec<_>> =
        vector["proof"].as_array().into_iter().flatten().map(digest).collect();
    let path = merkle::Path::new(siblings?)?;
    let (index, size) = (vector["leafIdx"].as_u64()?, vector["treeSize"].as_u64()?);
    Some(path.root(digest(&vector["leafHash"])?, index, size) == Some(digest(&vector["root"])?))
}

fn json_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            json_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
}
