//! When a list looks like a fault of the API.

use std::collections::BTreeMap;

use grey_core::ids::TenantId;
use sha2::{Digest, Sha256};

use super::{Rules, count};

/// How a tenant would go out of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// The API says so.
    Suspended,
    /// The API no longer lists it.
    Vanished,
}

/// Tenants that stay in service although the API says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Names exactly these tenants.
    pub id: String,
    /// Who is concerned, and how.
    pub losses: BTreeMap<TenantId, Loss>,
    /// Active tenants that the sync answers for, and those who left within the window.
    pub total: u64,
    /// Of these, those who left.
    pub lately: u64,
    /// What else is odd about the list.
    pub doubt: Doubt,
}

/// What makes a list hard to believe, however few it would take out of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Doubt {
    /// It lists nobody at all.
    pub empty: bool,
    /// Entries without an id that can be read, and that were not there before anybody was missing: whoever seems to have
    /// vanished may be behind one of them.
    pub unidentified: u64,
}

/// What was before the sync.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    /// Active tenants that the sync answers for.
    pub(super) in_service: u64,
    /// Tenants that left within the window.
    pub(super) lately: u64,
}

/// Holds `losses` back: all of them if, with those who left within the window, they are too many of the tenants in service when
/// it began, or if nobody is listed; those who have vanished if that may only seem so.
pub(super) fn hold(
    mut losses: BTreeMap<TenantId, Loss>,
    Before { in_service, lately }: Before,
    doubt: Doubt,
    rules: &Rules,
) -> Option<Hold> {
    let lost = count(&losses).saturating_add(lately);
    let total = in_service.saturating_add(lately);
    let too_many = lost > rules.allow && is_beyond(lost, rules.share, total);
    if !(too_many || doubt.empty) {
        losses.retain(|_, loss| *loss == Loss::Vanished && doubt.unidentified > 0);
    }
    (!losses.is_empty()).then(|| Hold { id: name(&losses), losses, total, lately, doubt })
}

/// Whether `lost` is more than `share` of `total`.
fn is_beyond(lost: u64, share: f64, total: u64) -> bool {
    lost as f64 > share * total as f64
}

/// The same for the same tenants, whenever and by whichever replica they are held.
fn name(losses: &BTreeMap<TenantId, Loss>) -> String {
    let mut hash = Sha256::new();
    for (id, loss) in losses {
        let loss: &[u8] = match loss {
            Loss::Suspended => b" suspended\n",
            Loss::Vanished => b" vanished\n",
        };
        hash.update(id.as_str());
        hash.update(loss);
    }
    let digest: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("shrink-{digest}")
}

impl Hold {
    /// In words.
    #[must_use]
    pub fn summary(&self) -> String {
        let lost = count(&self.losses);
        if self.doubt.empty {
            return format!("the tenant API lists nobody, so {lost} tenants would be suspended as deleted");
        }
        let vanished = count(self.losses.values().filter(|loss| **loss == Loss::Vanished));
        let suspended = lost - vanished;
        let total = self.total;
        let mut text = format!("of {total} active tenants, {vanished} are not listed any more");
        if suspended > 0 {
            text.push_str(&format!(" and {suspended} are suspended"));
        }
        if self.lately > 0 {
            text.push_str(&format!("; {} others left shortly before", self.lately));
        }
        if self.doubt.unidentified > 0 {
            let entries = self.doubt.unidentified;
            text.push_str(&format!("; {entries} entries of the list have no readable id"));
        }
        text
    }
}
