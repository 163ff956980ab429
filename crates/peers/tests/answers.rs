//! Every bench of a kernel once, ours and its peers', for its answer. A shared machine's times mean
//! nothing, so none are taken.

use std::process::Command;

#[test]
fn every_kernel_and_every_peer_gives_the_right_answer() {
    let checked = Command::new(env!("CARGO_BIN_EXE_halfstep-bench"))
        .arg("--answers")
        .output()
        .expect("the program starts");
    let said = String::from_utf8_lossy(&checked.stderr);
    print!("{said}");
    assert!(checked.status.success(), "{said}");
    assert!(said.trim_end().ends_with("cases, every answer right"), "{said}");
}
