//! What the system says about memory, in bytes; 0 where it says nothing.

/// Memory that can be had without swapping.
pub fn available_bytes() -> u64 {
    field("/proc/meminfo", "MemAvailable:")
}

/// Peak resident memory of this process.
pub fn peak_bytes() -> u64 {
    field("/proc/self/status", "VmHWM:")
}

fn field(file: &str, name: &str) -> u64 {
    let Ok(text) = std::fs::read_to_string(file) else { return 0 };
    let line = text.lines().find_map(|l| l.strip_prefix(name));
    line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 1024
}
