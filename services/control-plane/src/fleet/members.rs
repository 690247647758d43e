//! The members of the fleet, as the control database keeps them.

use grey_core::ids::InstanceId;
use grey_state::heartbeats::{Goodbye, Heartbeat};
use sea_orm::sea_query::{Expr, ExprTrait, OnConflict};
use sea_orm::{ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder};

use crate::database::{Database, Error};
use crate::entity::{routers, signed, unsigned};

/// Rows written by one statement.
const AT_ONCE: usize = 500;
const TABLE: &str = "routers";
/// Most routers that are remembered, those that no longer count included.
pub(super) const MAX_MEMBERS: usize = 10_000;

/// Whether a router counts, and if not, why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It may still answer.
    Member,
    /// It said goodbye.
    Left,
    /// A person said that it does not count.
    Dismissed,
    /// Its address refused connections, or answered as another router, throughout a lease.
    Gone,
}

impl Standing {
    fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Left => "left",
            Self::Dismissed => "dismissed",
            Self::Gone => "gone",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Member, Self::Left, Self::Dismissed, Self::Gone].into_iter().find(|it| it.as_str() == word)
    }
}

/// A router that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: String,
    /// Which run of it was seen; 0 if that is not known.
    pub(super) run: u64,
    pub(super) address: String,
    pub(super) region: String,
    pub(super) zone: String,
    pub(super) lease_ms: u64,
    pub(super) first_seen_ms: u64,
    /// To within a lease.
    pub(super) last_seen_ms: u64,
    pub(super) standing: Standing,
    /// Why it does not count any more.
    pub(super) remark: String,
}

impl Member {
    /// A router that is seen for the first time.
    pub(super) fn seen(beat: &Heartbeat, now_ms: u64) -> Self {
        Self {
            id: beat.router.clone(),
            run: beat.run,
            address: beat.address.clone(),
            region: beat.region.clone(),
            zone: beat.zone.clone(),
            lease_ms: u64::try_from(beat.lease.as_millis()).unwrap_or(u64::MAX),
            first_seen_ms: now_ms,
            last_seen_ms: now_ms,
            standing: Standing::Member,
            remark: String::new(),
        }
    }

    /// The router as it is seen now, after what was known of it. A heartbeat that does not read back ends no run.
    pub(super) fn seen_again(before: &Self, beat: &Heartbeat, now_ms: u64) -> Self {
        let seen = Self::seen(beat, now_ms);
        let run = if seen.run == 0 { before.run } else { seen.run };
        Self { run, first_seen_ms: before.first_seen_ms, ..seen }
    }

    /// How it would say goodbye.
    pub(super) fn goodbye(&self) -> Goodbye {
        Goodbye { router: self.id.clone(), run: self.run }
    }

    /// Whether both say the same of the router itself.
    pub(super) fn is_described_like(&self, other: &Self) -> bool {
        let place = |member: &Self| [&member.address, &member.region, &member.zone].map(String::clone);
        place(self) == place(other) && self.lease_ms == other.lease_ms && self.run == other.run
    }

    fn row(self) -> routers::Model {
        routers::Model {
            id: self.id,
            run: signed(self.run),
            address: self.address,
            region: self.region,
            zone: self.zone,
            lease_ms: signed(self.lease_ms),
            first_seen_ms: signed(self.first_seen_ms),
            last_seen_ms: signed(self.last_seen_ms),
            state: self.standing.as_str().to_owned(),
            remark: self.remark,
        }
    }
}

impl TryFrom<routers::Model> for Member {
    type Error = Error;

    fn try_from(row: routers::Model) -> Result<Self, Error> {
        let corrupt = |why: String| Error::Corrupt { table: TABLE, why };
        InstanceId::new(&row.id).map_err(|why| corrupt(why.to_string()))?;
        let standing = Standing::from_word(&row.state);
        Ok(Self {
            standing: standing.ok_or_else(|| corrupt(format!("`{}` is no state", row.state)))?,
            id: row.id,
            run: unsigned(TABLE, row.run)?,
            address: row.address,
            region: row.region,
            zone: row.zone,
            lease_ms: unsigned(TABLE, row.lease_ms)?,
            first_seen_ms: unsigned(TABLE, row.first_seen_ms)?,
            last_seen_ms: unsigned(TABLE, row.last_seen_ms)?,
            remark: row.remark,
        })
    }
}

impl Database {
    /// Every router that is remembered, by id.
    pub(super) async fn routers(&self) -> Result<Vec<Member>, Error> {
        let rows = routers::Entity::find().order_by_asc(routers::Column::Id).all(self.readers());
        self.read("read the routers", rows).await?.into_iter().map(Member::try_from).collect()
    }

    /// Writes members. What another replica has seen later, or a person dismissed later, stays.
    pub(super) async fn put_routers(&self, members: Vec<Member>) -> Result<(), Error> {
        use routers::Column;
        let mut rows = members.into_iter().map(|member| member.row().into_active_model());
        loop {
            let some: Vec<_> = rows.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                return Ok(());
            }
            let seen = |table: &'static str| Expr::col((table, Column::LastSeenMs));
            let replaced = [
                Column::Run,
                Column::Address,
                Column::Region,
                Column::Zone,
                Column::LeaseMs,
                Column::LastSeenMs,
                Column::State,
                Column::Remark,
            ];
            let replace = OnConflict::column(Column::Id)
                .update_columns(replaced)
                .action_and_where(seen("excluded").gte(seen(TABLE)))
                .to_owned();
            let insert = routers::Entity::insert_many(some).on_conflict(replace);
            self.read("write the routers", insert.exec_without_returning(self.writer())).await?;
        }
    }

    /// Stops counting a member, unless it was seen or dismissed since it was read; tells whether it did.
    pub(super) async fn end_router(
        &self,
        member: &Member,
        standing: Standing,
        remark: &str,
    ) -> Result<bool, Error> {
        use routers::Column;
        let update = routers::Entity::update_many()
            .col_expr(Column::State, Expr::value(standing.as_str()))
            .col_expr(Column::Remark, Expr::value(remark))
            .filter(Column::Id.eq(&member.id))
            .filter(Column::State.eq(Standing::Member.as_str()))
            .filter(Column::LastSeenMs.eq(signed(member.last_seen_ms)));
        Ok(self.read("write a router", update.exec(self.writer())).await?.rows_affected > 0)
    }

    /// Stops counting a router because a person says so, whatever a replica is about to write that saw it before.
    pub(super) async fn dismiss_router(&self, dismissed: &Member) -> Result<(), Error> {
        use routers::Column;
        let update = routers::Entity::update_many()
            .col_expr(Column::State, Expr::value(Standing::Dismissed.as_str()))
            .col_expr(Column::Remark, Expr::value(dismissed.remark.as_str()))
            .col_expr(Column::LastSeenMs, Expr::value(signed(dismissed.last_seen_ms)))
            .filter(Column::Id.eq(&dismissed.id));
        self.read("dismiss a router", update.exec(self.writer())).await.map(drop)
    }

    /// Forgets routers that do not count.
    pub(super) async fn forget_routers(&self, ids: &[String]) -> Result<(), Error> {
        for some in ids.chunks(AT_ONCE) {
            let delete = routers::Entity::delete_many()
                .filter(routers::Column::Id.is_in(some.iter().map(String::as_str)))
                .filter(routers::Column::State.ne(Standing::Member.as_str()));
            self.read("forget routers", delete.exec(self.writer())).await?;
        }
        Ok(())
    }
}
