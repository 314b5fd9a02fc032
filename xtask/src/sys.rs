//! The few calls to the operating system that the standard library lacks: free disk, signals, dying with the parent.
//! No policy lives here.

#![allow(unsafe_code, reason = "plain libc calls, each with its argument")]

use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Bytes that an ordinary user can still write below `path`.
pub(crate) fn free_disk(path: &Path) -> std::io::Result<u64> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all-zero is a valid value of this plain C struct, which statvfs only fills.
    let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call, the string ends with a nul.
    if unsafe { libc::statvfs(path.as_ptr(), &raw mut answer) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // The fields' widths differ between systems.
    #[allow(clippy::unnecessary_cast, reason = "needed on the systems where the field is 32 bits wide")]
    Ok(answer.f_bavail as u64 * answer.f_frsize as u64)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    Term,
    Kill,
}

/// Signals a whole process group. A group that is gone is fine.
pub(crate) fn signal_group(leader: u32, signal: Signal) {
    let number = match signal {
        Signal::Term => libc::SIGTERM,
        Signal::Kill => libc::SIGKILL,
    };
    let Ok(group) = libc::pid_t::try_from(leader) else { return };
    // 0 and 1 would mean our own group and everybody.
    if group > 1 {
        // SAFETY: kill takes two integers and touches no memory.
        unsafe { libc::kill(-group, number) };
    }
}

/// True while the process exists.
pub(crate) fn is_alive(pid: u32) -> bool {
    // SAFETY: kill takes two integers; signal 0 only asks.
    libc::pid_t::try_from(pid).is_ok_and(|pid| pid > 1 && unsafe { libc::kill(pid, 0) } == 0)
}

/// Tells two processes of one pid apart: when it was started, in the system's own terms.
pub(crate) fn started(pid: u32) -> Option<String> {
    if cfg!(target_os = "linux") {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The 22nd field; the second, the name, may hold spaces and ends with the last parenthesis.
        return stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned);
    }
    crate::tool::ask("ps", ["-o", "lstart=", "-p", &pid.to_string()])
}

/// Makes the child leader of its own process group, so that the terminal's Ctrl-C reaches only us.
pub(crate) fn own_group(command: &mut Command) {
    command.process_group(0);
}

/// Makes the kernel kill the child when we die, however we die. Only Linux can.
///
/// It follows the thread that starts the child, so children are started by the main thread only.
pub(crate) fn die_with_us(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        let us = std::process::id();
        // SAFETY: the closure runs between fork and exec and makes only async-signal-safe calls.
        unsafe {
            command.pre_exec(move || {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                // We may have died before the line above.
                if u32::try_from(libc::getppid()) != Ok(us) {
                    return Err(std::io::Error::from_raw_os_error(libc::ESRCH));
                }
                Ok(())
            });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _: &mut Command = command;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_room_and_an_unknown_path_is_an_error() {
        assert!(free_disk(Path::new("/")).unwrap() > 0);
        assert!(free_disk(Path::new("/no/such/folder")).is_err());
    }

    #[test]
    fn a_group_dies_of_its_signal() {
        let mut command = Command::new("cat");
        command.stdin(std::process::Stdio::piped());
        own_group(&mut command);
        die_with_us(&mut command);
        let mut child = command.spawn().unwrap();
        assert!(is_alive(child.id()));
        signal_group(child.id(), Signal::Kill);
        assert!(!child.wait().unwrap().success());
        assert!(!is_alive(child.id()));
    }
}
