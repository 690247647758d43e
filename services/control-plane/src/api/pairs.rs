//! Pages of what there is once for a tenant and a service: pins and databases.
//!
//! A page begins where the one before ended, by the index that begins with what it is filtered by: the last page costs
//! what the first one does.

use grey_core::ids::{ServiceId, TenantId};
use grey_proto::status::ApiError;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select};

use super::{id, invalid, one_more};

/// Of which tenant or service.
#[derive(Debug, Default, Clone)]
pub(super) struct Pairs {
    pub(super) tenant: Option<TenantId>,
    pub(super) service: Option<ServiceId>,
}

impl Pairs {
    /// A page of rows with these columns, by tenant and service, and one row more.
    pub(super) fn page<E: EntityTrait>(
        &self,
        (tenant, service): (E::Column, E::Column),
        size: usize,
        page_token: &str,
    ) -> Result<Select<E>, ApiError> {
        let last = last(page_token)?;
        let mut query = E::find().limit(one_more(size));
        if let Some(named) = &self.tenant {
            query = query.filter(tenant.eq(named.as_str()));
        }
        if let Some(named) = &self.service {
            query = query.filter(service.eq(named.as_str()));
        }
        // Ordered by what differs only: of rows of one service some database would sort by both.
        query = match (&self.tenant, &self.service) {
            (Some(_), _) => query.order_by_asc(service),
            (None, Some(_)) => query.order_by_asc(tenant),
            (None, None) => query.order_by_asc(tenant).order_by_asc(service),
        };
        let Some((last_tenant, last_service)) = last else { return Ok(query) };
        let is_ours = self.tenant.as_ref().is_none_or(|named| *named == last_tenant)
            && self.service.as_ref().is_none_or(|named| *named == last_service);
        if !is_ours {
            return Err(foreign());
        }
        let (last_tenant, last_service) = (last_tenant.as_str(), last_service.as_str());
        Ok(query.filter(match (&self.tenant, &self.service) {
            (Some(_), _) => service.gt(last_service),
            (None, Some(_)) => tenant.gt(last_tenant),
            (None, None) => {
                let place = [tenant, service].map(|column| Expr::col(column.as_column_ref()));
                Expr::tuple(place).gt(Expr::tuple([Expr::val(last_tenant), Expr::val(last_service)]))
            }
        }))
    }
}

/// The token of the page after a row.
pub(super) fn token(tenant: &str, service: &str) -> String {
    format!("{tenant}/{service}")
}

/// The tenant and service that a page ended with.
fn last(page_token: &str) -> Result<Option<(TenantId, ServiceId)>, ApiError> {
    if page_token.is_empty() {
        return Ok(None);
    }
    let (tenant, service) = page_token.split_once('/').ok_or_else(foreign)?;
    Ok(Some((id("page_token", tenant)?, id("page_token", service)?)))
}

fn foreign() -> ApiError {
    invalid("page_token", "is not of an earlier page")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "test code panics")]
mod tests {
    use grey_migrations_control::migrate;
    use grey_testkit::Postgres;
    use sea_orm::{ConnectionTrait, Database, DatabaseConnection, DbBackend, QueryTrait, Statement};

    use super::*;
    use crate::entity::pins::{Column, Entity};

    /// Pins of three hundred tenants for as many services.
    async fn filled(url: &str) -> DatabaseConnection {
        let mut options = sea_orm::ConnectOptions::new(url);
        options.max_connections(1);
        let database = Database::connect(options).await.unwrap();
        migrate(&database).await.unwrap();
        let numbers = |last: u32| match database.get_database_backend() {
            DbBackend::Postgres => format!("SELECT i FROM generate_series(1, {last}) AS n (i)"),
            _ => format!(
                "SELECT i FROM (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {last}) \
                 SELECT i FROM n)"
            ),
        };
        let (tenants, services) = (numbers(300), numbers(300));
        let fill = format!(
            "INSERT INTO pins SELECT 't' || t.i, 's' || s.i, 'v1', false, 1 FROM ({tenants}) AS t, ({services}) AS s"
        );
        database.execute_unprepared(&fill).await.unwrap();
        database.execute_unprepared("ANALYZE").await.unwrap();
        database
    }

    /// How the database reads the second page of these.
    async fn plan(database: &DatabaseConnection, of: &Pairs) -> String {
        let backend = database.get_database_backend();
        let page = of.page::<Entity>((Column::Tenant, Column::Service), 10, "t7/s7").unwrap();
        let (explain, column) = match backend {
            DbBackend::Postgres => ("EXPLAIN", 0),
            _ => ("EXPLAIN QUERY PLAN", 3),
        };
        let statement = Statement::from_string(backend, format!("{explain} {}", page.build(backend)));
        let rows = database.query_all_raw(statement).await.unwrap();
        let lines = rows.iter().map(|row| row.try_get_by_index::<String>(column).unwrap());
        lines.collect::<Vec<_>>().join("\n")
    }

    async fn pages_begin_where_they_should(url: &str, expected: [&str; 3]) {
        let database = filled(url).await;
        let (tenant, service) = (TenantId::new("t7").unwrap(), ServiceId::new("s7").unwrap());
        let all = Pairs::default();
        let of_tenant = Pairs { tenant: Some(tenant), service: None };
        let of_service = Pairs { tenant: None, service: Some(service) };
        for (of, expected) in [all, of_tenant, of_service].iter().zip(expected) {
            let plan = plan(&database, of).await;
            assert!(plan.contains(expected), "{expected} in\n{plan}");
            let more = ["Filter", "Sort", "Seq Scan", "TEMP B-TREE", "SCAN"];
            assert!(!more.iter().any(|more| plan.contains(more)), "{plan}");
        }
    }

    #[tokio::test]
    async fn no_page_reads_what_came_before_on_sqlite() {
        pages_begin_where_they_should(
            "sqlite::memory:",
            [
                "((tenant,service)>(?,?))",
                "(tenant=? AND service>?)",
                "pins_by_service (service=? AND tenant>?)",
            ],
        )
        .await;
    }

    #[tokio::test]
    async fn no_page_reads_what_came_before_on_postgres() {
        let server = Postgres::start().await.unwrap();
        pages_begin_where_they_should(
            &server.url(),
            [
                "Index Cond: (ROW(tenant, service) > ROW('t7'::text, 's7'::text))",
                "Index Cond: ((tenant = 't7'::text) AND (service > 's7'::text))",
                "Index Cond: ((service = 's7'::text) AND (tenant > 't7'::text))",
            ],
        )
        .await;
    }

    #[test]
    fn a_token_of_another_listing_is_refused() {
        let of = Pairs { tenant: None, service: Some(ServiceId::new("a").unwrap()) };
        let page = |token| of.page::<Entity>((Column::Tenant, Column::Service), 10, token);
        assert!(page("t/a").is_ok() && page("t/b").is_err() && page("t").is_err());
    }
}
