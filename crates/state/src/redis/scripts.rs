//! The Lua scripts.

use redis::{Arg, Cmd, cmd};
use std::sync::LazyLock;

/// A script, called by its digest.
pub(super) struct Script {
    code: &'static str,
    digest: String,
}

impl Script {
    fn new(code: &'static str) -> Self {
        Self { code, digest: redis::Script::new(code).get_hash().to_owned() }
    }

    /// A call on `keys`, to which the arguments are added.
    pub(super) fn on<K: AsRef<str>>(&self, keys: &[K]) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(&self.digest).arg(keys.len());
        for key in keys {
            call.arg(key.as_ref());
        }
        call
    }

    /// The same call with the code in it, for a server that does not know the digest.
    ///
    /// Loading the script first would have to reach every server of a cluster, the dead ones too.
    pub(super) fn in_full(&self, call: &Cmd) -> Cmd {
        let mut full = cmd("EVAL");
        full.arg(self.code);
        for arg in call.args_iter().skip(2) {
            if let Arg::Simple(bytes) = arg {
                full.arg(bytes);
            }
        }
        full
    }
}

macro_rules! script {
    ($name:ident, $($file:literal),+) => {
        pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!(concat!("lua/", $file))),+)));
    };
}

script!(FEED_APPEND, "tokens.lua", "feed_append.lua");
script!(FEED_RESET, "tokens.lua", "feed_reset.lua");
script!(STREAM_ENDS, "stream_ends.lua");
script!(INSTANCES_REPLACE, "instances_replace.lua");
script!(INSTANCES_ANNOUNCE, "instances_announce.lua");
script!(INSTANCES_BEGIN, "instances_begin.lua");
script!(INSTANCES_LIST, "instances_list.lua");
script!(LEASE_ACQUIRE, "tokens.lua", "lease_acquire.lua");
script!(LEASE_RELEASE, "lease_release.lua");
script!(TURN, "turn.lua");
script!(REQUEST_POST, "request_post.lua");
script!(REQUEST_TAKE, "request_take.lua");
script!(STATUS_PUBLISH, "tokens.lua", "status_publish.lua");
script!(ROUTERS_ADD, "routers_add.lua");
script!(ROUTERS_LEAVE, "routers_leave.lua");
script!(ROUTERS_LIVE, "routers_live.lua");
script!(PROJECTION_BEAT, "tokens.lua", "projection_beat.lua");
script!(PROJECTION_BEGIN, "tokens.lua", "projection_begin.lua");
script!(PROJECTION_REACHED, "tokens.lua", "projection_reached.lua");
script!(PROJECTION_FINISH, "tokens.lua", "projection_finish.lua");
script!(TENANT_CHANGE, "tokens.lua", "tenant_change.lua");
script!(TENANT_REPLACE, "tokens.lua", "tenant_replace.lua");
script!(SERVICE_SWAP, "service_swap.lua");
script!(SERVICE_REPLACE, "tokens.lua", "service_replace.lua");
