use grey_proto::sync::{HeldChange, SyncRun, SyncSource};

use super::*;

#[test]
fn texts_are_cut_between_characters() {
    let text = "é".repeat(1_000);
    let source = SyncSource { error: text.clone(), ..SyncSource::default() };
    let run = SyncRun { error: "short".to_owned(), ..SyncRun::default() };
    let mut status = SyncStatus { sources: vec![source], runs: vec![run], ..SyncStatus::default() };
    bound(&mut status);
    let cut = &status.sources[0].error;
    assert!(cut.len() <= MAX_TEXT && cut.len() > MAX_TEXT - 5, "{}", cut.len());
    assert!(cut.ends_with('…') && text.starts_with(cut.trim_end_matches('…')));
    assert_eq!(status.runs[0].error, "short");
}

#[test]
fn a_status_of_long_items_still_fits_a_message() {
    let held =
        HeldChange { items: vec!["i".repeat(160); 50], summary: "s".repeat(600), ..HeldChange::default() };
    let mut status = SyncStatus { held: vec![held; MAX_HELD], ..SyncStatus::default() };
    bound(&mut status);
    assert!(status.encoded_len() <= MAX_BYTES, "{}", status.encoded_len());
    assert_eq!(status.held.len(), MAX_HELD);
    assert!(!status.held[0].items.is_empty(), "as many items as fit");
}
