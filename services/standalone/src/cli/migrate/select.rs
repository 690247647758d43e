//! Which tenants a command is about.

use std::collections::BTreeSet;
use std::str::FromStr;

use grey_proto::control::{ListTenantsRequest, Tenant, TenantStatus};

use super::super::Failure;
use super::super::session::{Session, pages};

/// Tenants in words: terms joined by `+`, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selector(Vec<Term>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Term {
    All,
    Ids(BTreeSet<String>),
    Tier(String),
    Region(String),
    Label(String, String),
}

/// The tenants that a selector stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selected {
    /// By id, each once.
    pub(super) tenants: Vec<String>,
    /// Whether each was named, so that one without a database is a mistake.
    pub(super) named: bool,
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split('+').map(Term::from_str).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for Term {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let empty = || "say `all`, tenants as a,b,c, tier=gold, region=eu or label:key=value, joined by `+`";
        let value =
            |value: &str| if value.is_empty() { Err(empty().to_owned()) } else { Ok(value.to_owned()) };
        if let Some(label) = text.strip_prefix("label:") {
            return match label.split_once('=') {
                Some((key, of)) if !key.is_empty() => Ok(Self::Label(key.to_owned(), of.to_owned())),
                _ => Err(format!("`{text}` must be label:key=value")),
            };
        }
        match text.split_once('=') {
            Some(("tier", tier)) => value(tier).map(Self::Tier),
            Some(("region", region)) => value(region).map(Self::Region),
            Some(("id", ids)) => Self::ids(ids),
            Some((key, _)) => Err(format!("`{key}` is none of tier, region, id and label:key")),
            None if text == "all" => Ok(Self::All),
            None => Self::ids(text),
        }
    }
}

impl Term {
    fn ids(text: &str) -> Result<Self, String> {
        let ids: BTreeSet<String> = text.split(',').map(str::to_owned).collect();
        if ids.iter().any(String::is_empty) {
            return Err(format!("`{text}` must be tenants as a,b,c"));
        }
        Ok(Self::Ids(ids))
    }

    fn holds(&self, tenant: &Tenant) -> bool {
        match self {
            Self::All => true,
            Self::Ids(ids) => ids.contains(&tenant.id),
            Self::Tier(tier) => tenant.tier == *tier,
            Self::Region(region) => tenant.region == *region,
            Self::Label(key, value) => tenant.labels.get(key) == Some(value),
        }
    }
}

impl Selector {
    /// Every tenant.
    pub(super) fn all() -> Self {
        Self(vec![Term::All])
    }

    /// Asks the control plane which tenants these are, where they are not all named.
    ///
    /// # Errors
    /// The control plane refuses or does not answer; no tenant is left.
    pub(super) async fn resolve(&self, session: &Session) -> Result<Selected, Failure> {
        if let [Term::Ids(ids)] = self.0.as_slice() {
            return Ok(Selected { tenants: ids.iter().cloned().collect(), named: true });
        }
        let request = self.request();
        let mut client = session.tenants().await?;
        let page = async |page_size, page_token| {
            let request = session.request(ListTenantsRequest { page_size, page_token, ..request.clone() });
            let response = session.call("list tenants", client.list_tenants(request)).await?;
            Ok((response.tenants, response.next_page_token))
        };
        let (tenants, _) = pages(usize::MAX, page).await?;
        let tenants: Vec<String> =
            tenants.into_iter().filter(|tenant| self.holds(tenant)).map(|tenant| tenant.id).collect();
        if tenants.is_empty() {
            return Err(Failure::Input("no tenant is selected; see `grey tenant list`".to_owned()));
        }
        Ok(Selected { tenants, named: false })
    }

    /// What of the selector the control plane can look for.
    fn request(&self) -> ListTenantsRequest {
        let mut request =
            ListTenantsRequest { status: TenantStatus::Unspecified.into(), ..ListTenantsRequest::default() };
        for term in &self.0 {
            match term {
                Term::Tier(tier) => request.tier.clone_from(tier),
                Term::Region(region) => request.region.clone_from(region),
                Term::All | Term::Ids(_) | Term::Label(..) => {}
            }
        }
        request
    }

    fn holds(&self, tenant: &Tenant) -> bool {
        self.0.iter().all(|term| term.holds(tenant))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "test code panics")]
mod tests {
    use super::*;

    fn tenant(id: &str, tier: &str, region: &str, plan: &str) -> Tenant {
        Tenant {
            id: id.to_owned(),
            tier: tier.to_owned(),
            region: region.to_owned(),
            labels: [("plan".to_owned(), plan.to_owned())].into(),
            ..Tenant::default()
        }
    }

    #[test]
    fn a_selector_holds_where_all_of_its_terms_do() {
        let tenants = [
            tenant("a", "gold", "eu", "x"),
            tenant("b", "gold", "us", "y"),
            tenant("all", "free", "eu", "x"),
        ];
        let cases = [
            ("all", "a b all"),
            ("tier=gold", "a b"),
            ("tier=gold+region=eu", "a"),
            ("label:plan=x", "a all"),
            ("label:plan=x+a,b", "a"),
            ("id=all", "all"),
            ("tier=gold+tier=free", ""),
        ];
        for (text, wanted) in cases {
            let selector: Selector = text.parse().unwrap();
            let ids: Vec<_> = tenants.iter().filter(|t| selector.holds(t)).map(|t| t.id.as_str()).collect();
            assert_eq!(ids.join(" "), wanted, "{text}");
        }
    }

    #[test]
    fn the_control_plane_looks_for_tier_and_region() {
        let request = "tier=gold+label:a=b+region=eu".parse::<Selector>().unwrap().request();
        assert_eq!((request.tier.as_str(), request.region.as_str()), ("gold", "eu"));
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in ["", "a,,b", "tier=", "tier", "plan=x", "label:plan", "label:=x", "all+"] {
            // A bare word is a tenant's id.
            assert_eq!(text.parse::<Selector>().is_ok(), text == "tier", "{text}");
        }
    }
}
