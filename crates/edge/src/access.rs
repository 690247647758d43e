//! Who may do what.

use std::fmt;

use axum::http::{Extensions, HeaderMap};
use grey_core::change;
use grey_core::error::Reason;
use grey_core::text;
use grey_proto::status::ApiError;
use grey_runtime::Faults;
use grey_runtime::access::{self, Access, Principal};

use crate::principal::Stated;

/// What a caller may do. Each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Reads.
    Viewer,
    /// Also does the daily work: pins tenants, records schemas, runs syncs.
    Operator,
    /// Everything.
    Admin,
}

impl Role {
    /// Reads a role's name.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Viewer, Self::Operator, Self::Admin].into_iter().find(|role| role.as_str() == word)
    }

    /// The role's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// A caller who was found to be allowed. There is no other way to get one, and without one no handler can be called.
///
/// It is shown as the log shall name it: `ann`, or `ann via control-plane`.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whoever asks, directly or through another service.
    id: String,
    /// What is judged: never more than the token may.
    role: Role,
    via: Option<Via>,
}

/// Through whom somebody asks.
#[derive(Debug, Clone)]
struct Via {
    /// The token's name.
    token: String,
    /// Through whom the token's owner was asked, as it states; empty: nobody.
    before: String,
    /// The role of whoever asks, as the token's owner states it.
    stated: Role,
}

impl Caller {
    /// Who acts, as what and through whom: for an event, and for calls on their behalf.
    #[must_use]
    pub fn principal(&self) -> change::Principal {
        let via = self.via.as_ref().map(|via| match via.before.as_str() {
            "" => via.token.clone(),
            before => format!("{before} via {}", via.token),
        });
        change::Principal {
            id: self.id.clone(),
            role: self.role.as_str().to_owned(),
            via: via.unwrap_or_default(),
        }
    }

    /// Whether somebody asks through a service, or says so.
    #[must_use]
    pub fn is_on_behalf(&self) -> bool {
        self.via.is_some()
    }

    /// Refuses a caller of a lower role.
    ///
    /// # Errors
    /// [`Reason::Denied`].
    pub fn require(&self, role: Role, what: &str) -> Result<(), ApiError> {
        if self.role >= role {
            return Ok(());
        }
        let (own, needed) = (self.role.as_str(), role.as_str());
        let denied = |whose: String| {
            let message = format!("role {own}{whose} may not {what}; it takes {needed}");
            ApiError::new(Reason::Denied, message).with("role", needed)
        };
        Err(match &self.via {
            None => denied(String::new()),
            // Told apart for whoever asked on their behalf: this is no fault of the token's.
            Some(via) if via.stated < role => {
                denied(format!(" of `{}`", self.id)).with("principal", self.id.as_str())
            }
            Some(via) => denied(format!(" of token `{}`", via.token)),
        })
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.principal().fmt(f)
    }
}

/// Whoever a request's headers prove to have sent it, or why nobody.
#[derive(Debug, Clone)]
struct Identity(Result<Caller, Refused>);

/// Why nobody known has sent a request.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    /// What the caller is told.
    pub(crate) error: ApiError,
    /// Set if its credentials are to blame.
    pub(crate) failure: Option<access::Error>,
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self { error, failure: None }
    }
}

/// Finds out who calls.
#[derive(Debug)]
pub struct Gate {
    access: Access,
    /// What a caller without a token may do where such callers are let in at all.
    anonymous: Role,
}

impl Gate {
    /// `access` decides who is known. Where no token is configured, whoever is let in may do everything: a first run
    /// on one machine. Where tokens are, callers without one may only read.
    #[must_use]
    pub fn new(access: Access, options: &access::Options) -> Self {
        let anonymous = if options.tokens.is_empty() { Role::Admin } else { Role::Viewer };
        Self { access, anonymous }
    }

    /// Notes in `extensions` who sent `headers`.
    pub fn identify(&self, headers: &HeaderMap, extensions: &mut Extensions) {
        extensions.insert(Identity(self.caller(headers)));
    }

    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Refused> {
        let principal = self.access.authenticate(headers).map_err(|failure| {
            let message = format!("{failure}: send `authorization: Bearer <token>`");
            let error = ApiError::new(Reason::Unauthenticated, message);
            Refused { error, failure: Some(failure) }
        })?;
        let Principal { name, role } = principal.clone();
        let role = match principal.is_anonymous() {
            true => self.anonymous,
            false => Role::from_word(&role)
                .ok_or_else(|| ApiError::new(Reason::Denied, format!("role `{role}` means nothing here")))?,
        };
        Ok(match Stated::read(headers)? {
            None => Caller { id: name, role, via: None },
            Some(Stated { id, role: stated, via }) => {
                Caller { id, role: role.min(stated), via: Some(Via { token: name, before: via, stated }) }
            }
        })
    }
}

/// The caller of a request, if it has at least `role`; `what` says in a verb phrase what for.
///
/// # Errors
/// [`Reason::Unauthenticated`] or [`Reason::Denied`].
pub fn admit(extensions: &Extensions, role: Role, what: &str) -> Result<Caller, ApiError> {
    let unknown = || ApiError::new(Reason::Unauthenticated, "nobody looked at the request's credentials");
    let Identity(caller) = extensions.get::<Identity>().ok_or_else(unknown)?;
    let caller = caller.clone().map_err(|refused| refused.error)?;
    caller.require(role, what)?;
    Ok(caller)
}

/// Refuses a request that nobody known has sent, before anything of it is read.
///
/// # Errors
/// [`Reason::Unauthenticated`], or [`Reason::Denied`] for a role that means nothing.
pub(crate) fn require_identity(extensions: &Extensions) -> Result<(), Refused> {
    match extensions.get::<Identity>() {
        Some(Identity(Err(refused))) => Err(refused.clone()),
        _ => Ok(()),
    }
}

/// Notes every token of `options` whose role is no [`Role`], or whose name the log could not show, as a fault of the section
/// `access`.
pub fn check_tokens(faults: &mut Faults, options: &access::Options) {
    for (index, token) in options.tokens.iter().enumerate() {
        faults.check(text::is_plain(&token.name), &format!("access.tokens.{index}.name"), text::NOT_PLAIN);
        let key = format!("access.tokens.{index}.role");
        faults.check(Role::from_word(&token.role).is_some(), &key, "must be viewer, operator or admin");
    }
}
