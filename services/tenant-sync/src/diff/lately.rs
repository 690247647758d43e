//! Tenants that went out of service a short while ago without anybody having accepted it.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use grey_core::ids::TenantId;
use grey_core::tenant::TenantStatus;

use super::{Rules, count};
use crate::control::Known;

/// Whom the last syncs have taken out of service, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lately(BTreeMap<TenantId, SystemTime>);

impl Lately {
    /// Forgets whoever left before the window, and whoever is in service again.
    pub fn forget(&mut self, known: &Known, rules: &Rules, now: SystemTime) {
        self.0.retain(|id, at| {
            // A clock that went backwards keeps nobody for longer than the window.
            *at = (*at).min(now);
            let is_back =
                known.tenants().get(id).is_some_and(|entry| entry.tenant.status == TenantStatus::Active);
            !is_back && now.duration_since(*at).is_ok_and(|past| past < rules.window)
        });
    }

    /// Notes who has left.
    pub fn note(&mut self, left: impl IntoIterator<Item = TenantId>, now: SystemTime) {
        self.0.extend(left.into_iter().map(|id| (id, now)));
    }

    /// How many they are.
    #[must_use]
    pub fn count(&self) -> u64 {
        count(&self.0)
    }

    /// For the next leader.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let line = |(id, at): (&TenantId, &SystemTime)| {
            let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            format!("{at} {id}\n")
        };
        self.0.iter().map(line).collect::<String>().into_bytes()
    }

    /// Adds what a leader before has noted; lines that do not read are left out.
    pub fn take_over(&mut self, noted: &[u8]) {
        let text = String::from_utf8_lossy(noted);
        let read = |line: &str| {
            let (at, id) = line.split_once(' ')?;
            let at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at.parse().ok()?))?;
            Some((TenantId::new(id).ok()?, at))
        };
        self.0.extend(text.lines().filter_map(read));
    }
}
