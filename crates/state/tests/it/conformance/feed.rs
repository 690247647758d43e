use crate::samples::{DEADLINE, EPOCH, NOW, entry, event, position};
use grey_core::change::{Epoch, FormatLevel};
use grey_state::feed::{Append, FeedEntry, FeedRead, Head};
use grey_state::{Digests, Error, FencingToken, State};
use std::time::Duration;
use tokio::time::timeout;

/// The feed's ends in tests of the usual epoch.
fn head(first: u64, last: u64) -> Head {
    let (first, last) = (position(3, first).revision, position(3, last).revision);
    Head { epoch: EPOCH, first, last }
}

async fn append(state: &State, token: u64, revision: u64) -> Append {
    append_all(state, token, &[entry(revision)]).await
}

async fn append_all(state: &State, token: u64, entries: &[FeedEntry]) -> Append {
    state.feed.append(FencingToken(token), EPOCH, entries).await.unwrap()
}

async fn reset(state: &State, token: u64, base: u64) {
    state.feed.reset(FencingToken(token), &position(3, base)).await.unwrap();
}

async fn read(state: &State, after: u64) -> FeedRead {
    state.feed.read(&position(3, after), FormatLevel::CURRENT, 1000, NOW).await.unwrap()
}

fn numbers(read: &FeedRead) -> Vec<u64> {
    match read {
        FeedRead::Entries(entries) => entries.iter().map(|entry| entry.event.revision.0).collect(),
        other => panic!("no entries but {other:?}"),
    }
}

pub(crate) async fn check(state: &State) {
    a_missing_feed_takes_nothing_and_continues_nobody(state).await;
    a_base_continues_readers_at_exactly_it(state).await;
    appends_are_in_place_or_refused(state).await;
    an_old_leader_is_fenced(state).await;
    reads_are_in_order_complete_and_limited(state).await;
    waiting_readers_get_news_and_notice_a_new_history(state).await;
    entries_at_once_are_in_place_as_a_whole(state).await;
    a_trimmed_feed_loses_only_those_who_fell_behind(state).await;
    revisions_beyond_2_to_the_53_are_exact(state).await;
}

async fn a_missing_feed_takes_nothing_and_continues_nobody(state: &State) {
    assert_eq!(state.feed.head().await.unwrap(), None);
    assert_eq!(append(state, 1, 1).await, Append::OutOfPlace);
    assert_eq!(read(state, 0).await, FeedRead::Lost);
}

async fn a_base_continues_readers_at_exactly_it(state: &State) {
    reset(state, 1, 0).await;
    assert_eq!(state.feed.head().await.unwrap(), Some(head(0, 0)));
    assert_eq!(read(state, 0).await, FeedRead::Idle);
    reset(state, 1, 5).await;
    assert_eq!(state.feed.head().await.unwrap(), Some(head(5, 5)));
    assert_eq!(read(state, 5).await, FeedRead::Idle);
    for after in [0, 4, 6] {
        assert_eq!(read(state, after).await, FeedRead::Lost, "after {after}");
    }
    let foreign = state.feed.read(&position(4, 5), FormatLevel::CURRENT, 10, DEADLINE).await.unwrap();
    assert_eq!(foreign, FeedRead::Lost);
}

async fn appends_are_in_place_or_refused(state: &State) {
    assert_eq!(append(state, 1, 6).await, Append::Appended);
    assert_eq!(append(state, 1, 6).await, Append::Duplicate);
    assert_eq!(append(state, 1, 5).await, Append::Duplicate);
    assert_eq!(append(state, 1, 8).await, Append::OutOfPlace);
    assert_eq!(append(state, 1, 7).await, Append::Appended);
    let foreign = state.feed.append(FencingToken(1), Epoch(4), &[entry(8)]).await.unwrap();
    assert_eq!(foreign, Append::OutOfPlace);
    let rewritten = FeedEntry { event: event(6, vec![]), digests: Digests::unknown() };
    let rewritten = state.feed.append(FencingToken(1), EPOCH, &[rewritten]).await.unwrap();
    assert_eq!(rewritten, Append::OutOfPlace);
    assert_eq!(state.feed.head().await.unwrap(), Some(head(5, 7)));
}

async fn an_old_leader_is_fenced(state: &State) {
    assert_eq!(append(state, 10, 8).await, Append::Appended);
    let refused = state.feed.append(FencingToken(9), EPOCH, &[entry(9), entry(10)]).await;
    assert!(matches!(refused, Err(Error::Fenced { newest: 10, .. })), "{refused:?}");
    let refused = state.feed.reset(FencingToken(9), &position(2, 1)).await;
    assert!(matches!(refused, Err(Error::Fenced { newest: 10, .. })), "{refused:?}");
    assert_eq!(state.feed.head().await.unwrap(), Some(head(5, 8)));
    assert_eq!(append(state, 10, 9).await, Append::Appended);
}

async fn reads_are_in_order_complete_and_limited(state: &State) {
    let all = read(state, 5).await;
    assert_eq!(all, FeedRead::Entries((6..=9).map(entry).collect()));
    assert_eq!(numbers(&read(state, 7).await), [8, 9]);
    let some = state.feed.read(&position(3, 5), FormatLevel::CURRENT, 2, DEADLINE).await.unwrap();
    assert_eq!(numbers(&some), [6, 7]);
    assert_eq!(read(state, 9).await, FeedRead::Idle);
    let idle =
        state.feed.read(&position(3, 9), FormatLevel::CURRENT, 2, Duration::from_millis(30)).await.unwrap();
    assert_eq!(idle, FeedRead::Idle);
}

async fn waiting_readers_get_news_and_notice_a_new_history(state: &State) {
    let wait = |after: u64| {
        let state = state.clone();
        tokio::spawn(async move {
            timeout(DEADLINE, state.feed.read(&position(3, after), FormatLevel::CURRENT, 10, DEADLINE * 2))
                .await
                .unwrap()
                .unwrap()
        })
    };
    let readers = [wait(9), wait(9), wait(9), wait(9), wait(9), wait(9)];
    assert_eq!(append(state, 10, 10).await, Append::Appended);
    for reader in readers {
        assert_eq!(numbers(&reader.await.unwrap()), [10]);
    }
    let readers = [wait(10), wait(10)];
    state.feed.reset(FencingToken(11), &position(4, 10)).await.unwrap();
    for reader in readers {
        assert_eq!(reader.await.unwrap(), FeedRead::Lost);
    }
}

async fn entries_at_once_are_in_place_as_a_whole(state: &State) {
    let some = |revisions: std::ops::RangeInclusive<u64>| revisions.map(entry).collect::<Vec<_>>();
    reset(state, 11, 20).await;
    assert_eq!(append_all(state, 11, &some(21..=24)).await, Append::Appended);
    assert_eq!(append_all(state, 11, &some(21..=24)).await, Append::Duplicate);
    assert_eq!(append_all(state, 11, &some(23..=26)).await, Append::Appended, "what is held is passed over");
    assert_eq!(append_all(state, 11, &some(19..=27)).await, Append::Appended, "from before the base on");
    let all = FeedRead::Entries(some(21..=27));
    assert_eq!(read(state, 20).await, all);

    let gap_within = [entry(28), entry(30)];
    let backwards = [entry(29), entry(28)];
    let rewritten = FeedEntry { event: event(26, vec![]), digests: Digests::unknown() };
    let rewritten = [rewritten, entry(27), entry(28)];
    for wrong in [&gap_within[..], &backwards[..], &rewritten[..], &some(29..=31)[..], &[]] {
        assert_eq!(append_all(state, 11, wrong).await, Append::OutOfPlace, "{wrong:?}");
        assert_eq!(read(state, 20).await, all, "nothing of it was appended: {wrong:?}");
    }
    let foreign = state.feed.append(FencingToken(11), Epoch(4), &some(28..=29)).await.unwrap();
    assert_eq!(foreign, Append::OutOfPlace);
    assert_eq!(state.feed.head().await.unwrap(), Some(head(20, 27)));
}

async fn a_trimmed_feed_loses_only_those_who_fell_behind(state: &State) {
    reset(state, 11, 100).await;
    let last = 100 + 4 * crate::backend::FEED_LENGTH;
    for revision in 101..=last {
        assert_eq!(append(state, 11, revision).await, Append::Appended);
    }
    let head = state.feed.head().await.unwrap().unwrap();
    assert!(head.last.0 == last && head.first.0 > 100, "{head:?}");
    assert!(last - head.first.0 >= crate::backend::FEED_LENGTH, "{head:?}");
    assert!(last - head.first.0 <= 3 * crate::backend::FEED_LENGTH, "{head:?}");
    for after in [100, head.first.0 - 1] {
        assert_eq!(read(state, after).await, FeedRead::Lost);
    }
    let kept = read(state, head.first.0).await;
    assert_eq!(numbers(&kept), (head.first.0 + 1..=last).collect::<Vec<_>>());
}

async fn revisions_beyond_2_to_the_53_are_exact(state: &State) {
    let base = (1 << 63) - 3;
    reset(state, (1 << 53) + 1, base).await;
    for revision in [base + 1, base + 2] {
        assert_eq!(append(state, (1 << 53) + 1, revision).await, Append::Appended);
        assert_eq!(append(state, (1 << 53) + 1, revision).await, Append::Duplicate);
    }
    assert_eq!(append(state, (1 << 53) + 1, base + 4).await, Append::OutOfPlace);
    let refused = state.feed.append(FencingToken(1 << 53), EPOCH, &[entry(base + 3)]).await;
    assert!(matches!(refused, Err(Error::Fenced { newest, .. }) if newest == (1 << 53) + 1), "{refused:?}");
    assert_eq!(numbers(&read(state, base).await), [base + 1, base + 2]);
    assert_eq!(read(state, base + 2).await, FeedRead::Idle);
    assert_eq!(read(state, base - 1).await, FeedRead::Lost);
}
