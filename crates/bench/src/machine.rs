//! What a figure depends on besides the code: the machine and the compiler.

use halfstep_kernels::dispatch;
use serde::Serialize;
use std::fs::read_to_string;

/// Flags of a CPU that kernels may use, as Linux names them.
const FLAGS: [&str; 12] = [
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
];

/// Part of every row. Fields that the system does not report are empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Name of the CPU.
    pub cpu: String,
    /// Instruction sets of the CPU that decide speed.
    pub flags: Vec<String>,
    /// The kernels' dispatch level.
    pub level: String,
    /// As the system writes it, such as `266240K`.
    pub l3: String,
    /// Frequency governor of the first core.
    pub governor: String,
    /// Name and version of the system.
    pub os: String,
    /// Version of the compiler.
    pub rustc: String,
    /// Set by the program that starts the run; empty outside a checkout.
    pub commit: String,
}

impl Machine {
    /// Reads what the system reports; `commit` is that of the build.
    pub fn read(commit: &str) -> Self {
        let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.split_once(": "))
                .map_or("", |(_, value)| value)
        };
        let system = |path: &str| {
            read_to_string(format!("/sys/devices/system/cpu/cpu0/{path}"))
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let flags: Vec<&str> =
            field("flags").split(' ').chain(field("Features").split(' ')).collect();
        Self {
            cpu: field("model name").to_owned(),
            flags: FLAGS.iter().filter(|f| flags.contains(f)).map(|f| f.to_string()).collect(),
            level: dispatch::level().name().into(),
            l3: system("cache/index3/size"),
            governor: system("cpufreq/scaling_governor"),
            os: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
            rustc: env!("HALFSTEP_RUSTC").into(),
            commit: commit.into(),
        }
    }
}
