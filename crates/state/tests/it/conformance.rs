//! The promises, as functions of any implementation, run on each.

mod feed;
mod heartbeats;
mod instances;
mod leases;
mod projection;
mod requests;
mod statuses;
mod turns;

macro_rules! on_every_backend {
    ($($promise:ident => $check:path;)*) => {
        on_every_backend!(@backend memory $($promise => $check;)*);
        on_every_backend!(@backend standalone $($promise => $check;)*);
        on_every_backend!(@backend sentinel $($promise => $check;)*);
        on_every_backend!(@backend cluster $($promise => $check;)*);
    };
    (@backend $backend:ident $($promise:ident => $check:path;)*) => {
        mod $backend {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    let backend = crate::backend::$backend().await;
                    $check(&backend.state).await;
                }
            )*
        }
    };
}

on_every_backend! {
    feed_is_gapless_fenced_and_says_when_it_cannot_continue => crate::conformance::feed::check;
    projection_holds_what_was_written_and_its_position_last => crate::conformance::projection::check;
    instance_lists_are_replaced_whole => crate::conformance::instances::check;
    leases_have_one_holder_and_growing_tokens => crate::conformance::leases::check;
    turns_are_never_given_twice => crate::conformance::turns::check;
    requests_are_given_once_and_in_order => crate::conformance::requests::check;
    statuses_are_fenced_and_forgotten => crate::conformance::statuses::check;
    heartbeats_live_until_they_expire_or_leave => crate::conformance::heartbeats::check;
}
