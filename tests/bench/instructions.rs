//! How many instructions of user space one event takes in the sandbox: the same from run to run where times are not. A copy of
//! this program is stepped through one instruction at a time, so it needs neither a counter of the processor's, which virtual
//! machines often lack, nor a tool that would have to know code made at run time.

#![allow(unsafe_code, reason = "plain libc calls, each with its argument")]

use std::process::{Child, Command};

use crate::{
    outcome::Outcome,
    report::say,
    rig::Rig,
    sandbox::{Counted, Hot},
};

/// In each of the three.
const EVENTS: u32 = 8;
/// What was recorded last, and on what.
const RECORDED: &str = include_str!("instructions.toml");

pub(crate) async fn run(rig: &Rig) -> Vec<Outcome> {
    let names = Counted::ALL.map(|counted| (counted, format!("instructions/{}", counted.name())));
    if !names.iter().any(|(_, name)| rig.wants(name)) {
        return Vec::new();
    }
    let counts = match tokio::task::spawn_blocking(count).await.expect("the thread that counts") {
        Ok(counts) => counts,
        // It says nothing of the daemon that this machine can't count.
        Err(why) => {
            say(&format!("instructions: not counted: {why}"));
            return Vec::new();
        }
    };
    let recorded: toml::Table = RECORDED.parse().expect("instructions.toml");
    let outcome = |((counted, name), count): ((Counted, String), u64)| {
        let value = count as f64 / f64::from(EVENTS);
        let recorded = recorded.get(std::env::consts::ARCH).and_then(|of| of.get(counted.name()));
        let baseline = recorded.and_then(toml::Value::as_integer).map(|count| count as f64);
        say(&format!("{name}: {value:.0}, last recorded {baseline:?}"));
        let ratio = baseline.map(|baseline| value / baseline);
        Outcome {
            name,
            ratio,
            value: Some(value),
            unit: Some("instructions"),
            baseline,
            ..Outcome::default()
        }
    };
    names.into_iter().zip(counts).map(outcome).filter(|outcome| rig.wants(&outcome.name)).collect()
}

/// The copy: stops before each of the three, and after the last.
pub(crate) async fn traced() {
    let mut hot = Hot::new(EVENTS).await;
    for counted in Counted::ALL {
        hot.run(counted).await;
    }
    // SAFETY: it makes our parent our tracer, and has no other arguments.
    let allowed = unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
    assert_eq!(allowed, 0, "ptrace: {}", std::io::Error::last_os_error());
    for counted in Counted::ALL {
        stop();
        hot.run(counted).await;
    }
    stop();
}

/// What our tracer waits for.
fn stop() {
    // SAFETY: it sends a signal to this thread.
    unsafe { libc::raise(libc::SIGSTOP) };
}

/// Steps a copy of this program from stop to stop.
fn count() -> Result<[u64; 3], String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut child = Command::new(program).arg("--traced").spawn().map_err(|e| e.to_string())?;
    let counts = stops(&child);
    drop(child.kill());
    drop(child.wait());
    counts
}

fn stops(child: &Child) -> Result<[u64; 3], String> {
    let pid = libc::pid_t::try_from(child.id()).map_err(|e| e.to_string())?;
    if wait(pid)? != libc::SIGSTOP {
        return Err("the copy did not stop".to_owned());
    }
    let mut counts = [0; 3];
    for count in &mut counts {
        let (mut signal, mut before) = (0, None);
        loop {
            step(pid, signal)?;
            signal = match wait(pid)? {
                libc::SIGTRAP => 0,
                libc::SIGSTOP => break,
                other => other,
            };
            // A repeated string instruction, as in memcpy, is stepped through byte by byte, but is one.
            let place = place(pid);
            *count += u64::from(place.is_none() || place != before);
            before = place;
        }
    }
    Ok(counts)
}

/// Of the next instruction.
#[cfg(target_arch = "x86_64")]
fn place(pid: libc::pid_t) -> Option<i64> {
    let offset = std::mem::offset_of!(libc::user_regs_struct, rip);
    // SAFETY: the process is ours, traced and stopped; the registers come first in what the offset counts from.
    Some(unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, pid, offset, 0) })
}

/// No instruction repeats itself elsewhere.
#[cfg(not(target_arch = "x86_64"))]
fn place(_pid: libc::pid_t) -> Option<i64> {
    None
}

/// By one instruction; a call of the system counts as one.
fn step(pid: libc::pid_t, signal: libc::c_int) -> Result<(), String> {
    // SAFETY: the process is ours, traced and stopped; address and data are no pointers here.
    match unsafe { libc::ptrace(libc::PTRACE_SINGLESTEP, pid, 0, signal) } {
        0 => Ok(()),
        _ => Err(format!("ptrace: {}", std::io::Error::last_os_error())),
    }
}

/// The signal that it stopped for.
fn wait(pid: libc::pid_t) -> Result<libc::c_int, String> {
    let mut status = 0;
    // SAFETY: the pointer is valid for the call.
    if unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) } != pid {
        return Err(format!("waitpid: {}", std::io::Error::last_os_error()));
    }
    if libc::WIFSTOPPED(status) {
        Ok(libc::WSTOPSIG(status))
    } else {
        Err(format!("the copy ended early, with status {status}"))
    }
}
