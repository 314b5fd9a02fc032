//! What the machine says: medians, bytes on disk, bytes written, peak memory, the price of a sync.

use std::{
    fs::{self, File},
    io::{Seek, SeekFrom, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    time::Instant,
};

use crate::store::Result;

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// `median (lowest-highest)`, each as `show` prints it.
pub fn spread(values: &[f64], show: impl Fn(f64) -> String) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{} ({}-{})", show(median(values)), show(low), show(high))
}

/// Bytes that a directory takes on disk: blocks, not lengths, as files are pre-allocated sparsely. Files come and go
/// while this looks.
pub fn disk_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

fn proc_number(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// Bytes this process has sent towards the disk.
pub fn written_bytes() -> u64 {
    proc_number("/proc/self/io", "write_bytes:")
}

/// The most memory this process has held.
pub fn peak_rss_bytes() -> u64 {
    proc_number("/proc/self/status", "VmHWM:") * 1024
}

/// Microseconds of rewriting 4 KiB and `fdatasync`, once.
pub fn sync_micros(dir: &Path, times: usize) -> Result<Vec<f64>> {
    let path = dir.join("sync-probe");
    let mut file = File::create(&path)?;
    let mut micros = Vec::new();
    for round in 0..times {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[round as u8; 4096])?;
        let start = Instant::now();
        file.sync_data()?;
        micros.push(start.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(path)?;
    Ok(micros)
}
