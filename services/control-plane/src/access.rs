//! Who may do what: one table of every operation, and nothing is allowed that is not in it.

use axum::http::Extensions;
use grey_edge::{Caller, Role};
use grey_proto::status::ApiError;

macro_rules! operations {
    ($($name:ident: $role:ident, $what:literal;)*) => {
        /// Everything that can be asked of the control plane, over either transport.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Operation {
            $(#[doc = $what] $name,)*
        }

        impl Operation {
            /// Every operation.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The least role that may do it.
            #[must_use]
            pub fn role(self) -> Role {
                match self { $(Self::$name => Role::$role,)* }
            }

            /// What it does, as a verb phrase.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $what,)* }
            }
        }
    };
}

operations! {
    GetTenant: Viewer, "read tenants";
    ListTenants: Viewer, "list tenants";
    PutTenant: Admin, "write tenants";
    DeleteTenant: Admin, "delete tenants";
    ObserveSchema: Operator, "record schemas";
    GetService: Viewer, "read services";
    ListServices: Viewer, "list services";
    PutService: Admin, "write services";
    DeleteService: Admin, "delete services";
    PutVersion: Admin, "write versions";
    DeleteVersion: Admin, "delete versions";
    PutPolicy: Admin, "write policies";
    PutOverlay: Admin, "write overlays";
    DeleteOverlay: Admin, "delete overlays";
    PromoteOverlay: Admin, "promote overlays";
    ListPins: Viewer, "list pins";
    PutPin: Operator, "pin tenants";
    DeletePin: Operator, "unpin tenants";
    PutPins: Operator, "pin many tenants";
    ApplyChangeSet: Operator, "apply change sets";
    PutDatabase: Admin, "register databases";
    ListDatabases: Viewer, "list databases";
    DeleteDatabase: Admin, "forget databases";
    ListSealedDatabases: Operator, "list sealed databases";
    RotateKeys: Admin, "rotate keys";
    StartUpgrade: Operator, "upgrade databases";
    Provision: Admin, "provision databases";
    GetUpgrade: Viewer, "read upgrades";
    ListUpgrades: Viewer, "list upgrades";
    WatchUpgrade: Viewer, "watch upgrades";
    CancelUpgrade: Operator, "cancel upgrades";
    GetSchemaHistory: Viewer, "read what was done to databases";
    GetSchemaDrift: Viewer, "compare databases";
    ListEvents: Viewer, "list events";
    WatchEvents: Viewer, "watch events";
    VerifyEvents: Viewer, "verify events";
    ExplainAt: Viewer, "explain decisions";
    ListRouters: Viewer, "list routers";
    WaitForRouters: Viewer, "wait for routers";
    DismissRouter: Operator, "dismiss routers";
}

/// The caller of a request, if the table allows the operation.
///
/// # Errors
/// The request is not authenticated, or its role is too low.
pub(crate) fn admit(extensions: &Extensions, operation: Operation) -> Result<Caller, ApiError> {
    grey_edge::admit(extensions, operation.role(), operation.as_str())
}
