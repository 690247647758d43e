//! How many files and connections a process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Lets this process have as many open as the system allows it at most. What it gets unasked is often 1,024: fewer than the
/// connections that one port takes, so that some clients could keep all others from all ports.
pub fn raise_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, most)| {
        if soft < most { setrlimit(Resource::RLIMIT_NOFILE, most, most) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the number of open files; set it where the process is started");
    }
}
