//! What a process has used: processor time, memory, disk.

use std::{path::Path, time::Duration};

use rustix::time::{ClockId, clock_gettime};

/// Processor time of this process since it began, all threads.
pub(super) fn process_cpu() -> Duration {
    cpu(ClockId::ProcessCPUTime)
}

/// Processor time of this thread since it began.
pub(super) fn thread_cpu() -> Duration {
    cpu(ClockId::ThreadCPUTime)
}

fn cpu(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// Memory that the kernel holds for this process, bytes: now and at most so far. `None` where it
/// does not say.
pub(super) fn memory() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some((bytes("VmRSS:")?, bytes("VmHWM:")?))
}

/// Bytes of all files below a directory.
pub(super) fn disk(dir: &Path) -> std::io::Result<u64> {
    let (mut waiting, mut bytes) = (vec![dir.to_owned()], 0);
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            // A file may go away while the directory is read.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                waiting.push(entry.path());
            } else {
                bytes += metadata.len();
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_counted_and_files_are_found() {
        let (process, thread) = (process_cpu(), thread_cpu());
        let mut digest = bkss_scheme::Digest::ZERO;
        while thread_cpu() < thread + Duration::from_millis(20) {
            digest = bkss_scheme::hash::plain(&digest.0);
        }
        assert!(process_cpu() >= process + Duration::from_millis(20), "{digest}");
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("below")).unwrap();
        std::fs::write(dir.path().join("below/file"), [0; 1000]).unwrap();
        std::fs::write(dir.path().join("file"), [0; 24]).unwrap();
        assert_eq!(disk(dir.path()).unwrap(), 1024);
        if let Some((now, most)) = memory() {
            assert!(now > 0 && now <= most);
        }
    }
}
