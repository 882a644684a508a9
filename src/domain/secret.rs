//! Secrets as types. None has `Display`, `Debug` or `Serialize`: a secret that cannot be printed cannot be logged.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Declares a text secret: zeroized on drop, compared in constant time, readable only through `expose`.
macro_rules! secret_text {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name(Zeroizing<String>);

        impl $name {
            pub fn new(text: String) -> Self {
                Self(Zeroizing::new(text))
            }

            /// The secret itself. Every call is a place to review.
            pub fn expose(&self) -> &str {
                &self.0
            }

            /// The secret itself, for a buffer that cannot be zeroized: moved, so that no second copy is made.
            pub fn into_exposed(mut self) -> String {
                std::mem::take(&mut *self.0)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
            }
        }

        impl Eq for $name {}
    )+};
}

secret_text! {
    /// What a plugin's API accepts (RFC 6749 §1.4).
    AccessToken,
    /// What the provider accepts for a new access token (RFC 6749 §1.5).
    RefreshToken,
    /// OpenID Connect ID token: kept only until the account is known.
    IdToken,
    /// The client's password at the provider (RFC 6749 §2.3.1).
    ClientSecret,
    /// One-time code of the authorization response (RFC 6749 §4.1.2).
    AuthorizationCode,
    /// PKCE `code_verifier` (RFC 7636 §4.1).
    CodeVerifier,
    /// OAuth `state`, 256 bits: whoever holds it can finish the flow (RFC 6749 §10.12).
    FlowSecret,
    /// What one browser holds for one flow in a cookie, 256 bits: a session, or the right to bring an attempt's answer.
    BrowserSecret,
    /// An authorization response as it was posted, form-encoded; it may hold a code.
    PostedResponse,
    /// OpenID Connect `nonce`.
    Nonce,
    /// A bearer token that a caller presented; untrusted until `identity` has verified it.
    PresentedToken,
}
