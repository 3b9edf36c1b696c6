//! The files of a small network, and the binary run beside them.

use std::{
    path::Path,
    process::{Command, Output},
};

use crate::consortium;

/// The files of the network in a directory of their own.
pub(crate) struct Files {
    dir: tempfile::TempDir,
}

impl Files {
    /// A directory without files.
    pub(crate) fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs the command in the directory.
    pub(crate) fn bkss(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bkss"));
        command.current_dir(self.dir()).args(args);
        command
    }

    pub(crate) fn receipt(slot: usize) -> String {
        format!("receipts/7/{slot:06}.receipt")
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir().join(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.dir().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// The files of a network with one meter that has signed five slots.
    pub(crate) fn make() -> Self {
        let (files, made) = (Self::empty(), consortium::make());
        files.write("genesis.bkss", &made.genesis);
        files.write("archive.bkss", &made.archive);
        for (slot, receipt) in (1..).zip(&made.receipts) {
            files.write(&Self::receipt(slot), receipt);
        }
        for (id, (keys, sessions)) in made.providers.iter().enumerate() {
            files.write(&format!("providers/{id}/genesis.bkss"), &made.genesis);
            files.write(&format!("providers/{id}/keys.bkss"), keys);
            files.write(&format!("providers/{id}/sessions/000001.bkss"), sessions);
        }
        files
    }
}
