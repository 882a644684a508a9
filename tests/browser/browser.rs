//! A browser as far as it matters here: cookies by host with their attributes, `SameSite=Lax`, redirects, forms, meta
//! refresh, `Origin` and `Sec-Fetch-Site`, and `form-action` as Chromium holds it against the whole chain of redirects.

use std::collections::BTreeMap;

use reqwest::{
    Client, Method, StatusCode,
    header::{self, HeaderMap, HeaderValue},
    redirect,
};
use url::{Url, form_urlencoded};

const MOST_REDIRECTS: usize = 12;

/// One browser of one person.
#[derive(Clone)]
pub(crate) struct Browser {
    client: Client,
    /// By host and name: ports do not tell sites apart.
    cookies: BTreeMap<(String, String), String>,
    /// Sends no request to this path, and stands before it instead.
    halt_at: Option<&'static str>,
}

/// What is shown in the end.
pub(crate) struct Page {
    pub(crate) url: Url,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

/// A request as somebody else may make it.
pub(crate) struct Sent {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<String>,
}

impl Browser {
    pub(crate) fn new() -> Self {
        Self::trusting(None)
    }

    #[expect(clippy::disallowed_methods, reason = "a browser is no part of the broker")]
    pub(crate) fn trusting(root: Option<reqwest::Certificate>) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let builder = Client::builder().redirect(redirect::Policy::none()).no_proxy();
        let builder = match root {
            Some(root) => builder.tls_certs_only([root]),
            None => builder,
        };
        Self { client: builder.build().unwrap(), cookies: BTreeMap::new(), halt_at: None }
    }

    /// Another browser of the same make, with nothing in it.
    pub(crate) fn fresh(&self) -> Self {
        Self { cookies: BTreeMap::new(), ..self.clone() }
    }

    /// Follows a link, or an address that was typed or sent.
    pub(crate) async fn open(&mut self, url: &Url) -> Page {
        self.follow(Sent::get(url), None).await
    }

    /// Presses a button of the page's form.
    pub(crate) async fn press(&mut self, page: &Page, name: &str, value: &str) -> Page {
        let form = page.form();
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(&form.fields).append_pair(name, value);
        let target = page.url.join(&form.action).unwrap();
        let mut sent = Sent::post(&target, body.finish());
        // Under `Referrer-Policy: no-referrer` a form's origin is opaque (Fetch).
        sent.headers.insert(header::ORIGIN, HeaderValue::from_static("null"));
        self.follow(sent, Some(page)).await
    }

    /// As [`Self::press`], up to the first request to `path`, which is not sent: its address comes back.
    pub(crate) async fn press_up_to(&mut self, page: &Page, button: (&str, &str), path: &'static str) -> Url {
        self.halt_at = Some(path);
        let halted = self.press(page, button.0, button.1).await;
        self.halt_at = None;
        assert_eq!(halted.url.path(), path, "{}", halted.body);
        halted.url
    }

    /// Goes where the page sends the browser by itself.
    pub(crate) async fn go_on(&mut self, page: &Page) -> Page {
        let next = page.refresh().unwrap_or_else(|| panic!("nothing leads on from {}", page.body));
        self.follow(Sent::get(&next), Some(page)).await
    }

    /// Sends exactly this, with the browser's cookies, and follows nothing.
    pub(crate) async fn send(&mut self, sent: Sent) -> Page {
        self.once(sent, true).await
    }

    pub(crate) fn cookie_names(&self) -> Vec<&str> {
        self.cookies.keys().map(|(_, name)| name.as_str()).collect()
    }

    /// Takes over another browser's cookies whose name contains `part`.
    pub(crate) fn steal(&mut self, from: &Self, part: &str) {
        let stolen = from.cookies.iter().filter(|((_, name), _)| name.contains(part));
        self.cookies.extend(stolen.map(|(key, value)| (key.clone(), value.clone())));
    }

    /// Has another browser's cookies under names of which `part` is replaced.
    pub(crate) fn plant(&mut self, from: &Self, part: &str, with: &str) {
        let renamed =
            from.cookies.iter().map(|((host, name), value)| ((host.clone(), name.replace(part, with)), value));
        self.cookies.extend(renamed.map(|(key, value)| (key, value.clone())));
    }

    async fn follow(&mut self, first: Sent, from: Option<&Page>) -> Page {
        let policy = (first.method == Method::POST).then(|| from.map(FormAction::of)).flatten();
        let initiator = from.map(|page| page.url.clone());
        let mut sent = first;
        for _ in 0..MOST_REDIRECTS {
            if let Some(policy) = &policy {
                assert!(policy.allows(&sent.url), "form-action blocks {}", sent.url);
            }
            if self.halt_at == Some(sent.url.path()) {
                let (url, body) = (sent.url, String::new());
                return Page { url, status: StatusCode::OK, headers: HeaderMap::new(), body };
            }
            let same_site = initiator.as_ref().is_none_or(|from| from.host() == sent.url.host());
            let relation = match &initiator {
                None => "none",
                Some(from) if from.origin() == sent.url.origin() => "same-origin",
                Some(_) if same_site => "same-site",
                Some(_) => "cross-site",
            };
            sent.headers.insert("sec-fetch-site", HeaderValue::from_static(relation));
            let url = sent.url.clone();
            let page = self.once(sent, same_site).await;
            if !page.status.is_redirection() {
                return page;
            }
            assert_eq!(page.status, StatusCode::SEE_OTHER, "a body is never repeated elsewhere");
            let next = url.join(page.headers[header::LOCATION].to_str().unwrap()).unwrap();
            sent = Sent::get(&next);
        }
        panic!("redirected {MOST_REDIRECTS} times");
    }

    async fn once(&mut self, mut sent: Sent, same_site: bool) -> Page {
        let host = sent.url.host_str().unwrap().to_owned();
        // Lax: with another site's requests only where they are navigations by GET.
        if same_site || sent.method == Method::GET {
            let own = self.cookies.iter().filter(|((of, _), _)| *of == host);
            let line: Vec<_> = own.map(|((_, name), value)| format!("{name}={value}")).collect();
            if !line.is_empty() {
                sent.headers.insert(header::COOKIE, line.join("; ").parse().unwrap());
            }
        }
        let mut request = self.client.request(sent.method, sent.url.clone()).headers(sent.headers);
        if let Some(body) = sent.body {
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded").body(body);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        for line in headers.get_all(header::SET_COOKIE) {
            self.keep(&host, line.to_str().unwrap());
        }
        Page { url: sent.url, status, headers, body: answer.text().await.unwrap() }
    }

    fn keep(&mut self, host: &str, line: &str) {
        let (pair, attributes) = line.split_once(';').unwrap();
        let (name, value) = pair.split_once('=').unwrap();
        let has = |wanted: &str| attributes.split(';').any(|attribute| attribute.trim() == wanted);
        assert!(has("HttpOnly") && has("SameSite=Lax") && has("Path=/"), "{line}");
        assert!(!name.starts_with("__Host-") || (has("Secure") && !attributes.contains("Domain")), "{line}");
        let key = (host.to_owned(), name.to_owned());
        if has("Max-Age=0") {
            self.cookies.remove(&key);
        } else {
            self.cookies.insert(key, value.to_owned());
        }
    }
}

impl Sent {
    pub(crate) fn get(url: &Url) -> Self {
        Self { method: Method::GET, url: url.clone(), headers: HeaderMap::new(), body: None }
    }

    pub(crate) fn post(url: &Url, body: String) -> Self {
        Self { method: Method::POST, url: url.clone(), headers: HeaderMap::new(), body: Some(body) }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().unwrap());
        self
    }
}

struct Form {
    action: String,
    fields: Vec<(String, String)>,
}

impl Page {
    /// The values of the hidden field of that name.
    pub(crate) fn field(&self, name: &str) -> String {
        self.form().fields.into_iter().find(|(field, _)| field == name).unwrap().1
    }

    pub(crate) fn shows(&self, text: &str) -> bool {
        self.body.contains(text)
    }

    /// Where the first link that says so leads.
    pub(crate) fn link(&self, label: &str) -> Option<Url> {
        let (before, _) = self.body.split_once(label)?;
        let tag = &before[before.rfind("<a ")?..];
        self.url.join(&attribute(tag, "href")?).ok()
    }

    fn refresh(&self) -> Option<Url> {
        let (_, rest) = self.body.split_once("http-equiv=\"refresh\"")?;
        let content = attribute(rest, "content")?;
        self.url.join(content.strip_prefix("0; url=")?).ok()
    }

    fn form(&self) -> Form {
        let (_, rest) = self.body.split_once("<form ").unwrap_or_else(|| panic!("no form in {}", self.body));
        let (form, _) = rest.split_once("</form>").unwrap();
        let (tag, inside) = form.split_once('>').unwrap();
        let fields = inside.split("<input ").skip(1).map(|input| {
            let (tag, _) = input.split_once('>').unwrap();
            (attribute(tag, "name").unwrap(), attribute(tag, "value").unwrap())
        });
        Form { action: attribute(tag, "action").unwrap(), fields: fields.collect() }
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split_once(&format!("{name}=\""))?.1.split_once('"')?.0;
    Some(value.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
}

/// The page's `form-action`.
struct FormAction {
    own: url::Origin,
    listed: Vec<String>,
}

impl FormAction {
    fn of(page: &Page) -> Self {
        let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        let directive = policy.split(';').find_map(|part| part.trim().strip_prefix("form-action "));
        let listed = directive.expect("every page of either server says where its forms go").split(' ');
        Self { own: page.url.origin(), listed: listed.map(str::to_owned).collect() }
    }

    fn allows(&self, url: &Url) -> bool {
        let own = self.own == url.origin() && self.listed.iter().any(|source| source == "'self'");
        own || self.listed.iter().any(|source| *source == url.origin().ascii_serialization())
    }
}
