//! A user with a browser, without a browser: follows redirects, keeps cookies as browsers do, and fills in forms.

use claviger::outbound::{Outbound, Reply, Request};
use http::{
    HeaderValue, Method,
    header::{COOKIE, LOCATION, SET_COOKIE},
};
use url::Url;

use crate::provider::{outbound, post};

/// Where applications take their codes themselves; nothing listens there.
pub(crate) const CALLBACK: &str = "http://127.0.0.1/callback";
const MOST_STEPS: usize = 20;

/// One browser profile of one user.
pub(crate) struct Browser {
    user: String,
    outbound: Outbound,
    cookies: Vec<Cookie>,
    /// The broker has sent the browser on: who asks for consent now is the provider, no longer the platform.
    at_provider: bool,
}

/// Belongs to a host with all its ports (RFC 6265 §8.5). That is its site too: hosts here are literal addresses.
struct Cookie {
    host: String,
    path: String,
    name: String,
    value: String,
}

/// What the user answers when the provider asks for consent. The broker's own question is answered with yes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Approve,
    Deny,
    /// Approves, having asked the provider for its answer as a form (OAuth 2.0 Form Post Response Mode).
    ApproveByPost,
}

/// Where the browser stands in the end.
pub(crate) struct Page {
    pub(crate) url: Url,
    /// Empty where nobody was asked for it.
    pub(crate) text: String,
}

struct Form {
    action: String,
    fields: Vec<(String, String)>,
}

impl Browser {
    pub(crate) fn of(user: &str) -> Self {
        Self { user: user.to_owned(), outbound: outbound(), cookies: Vec::new(), at_provider: false }
    }

    /// Opens `url` and does what the pages ask, up to [`CALLBACK`], which is not opened, or to a page that asks nothing.
    pub(crate) async fn visit(&mut self, url: &Url, answer: Answer) -> Page {
        let callback = Url::parse(CALLBACK).unwrap();
        let mut place = url.clone();
        let mut reply = self.open(Request::get(place.clone()), None).await;
        for _ in 0..MOST_STEPS {
            if let Some(location) = reply.headers.get(LOCATION) {
                place = place.join(location.to_str().unwrap()).unwrap();
                if (place.origin(), place.path()) == (callback.origin(), callback.path()) {
                    return Page { url: place, text: String::new() };
                }
                reply = self.open(Request::get(place.clone()), None).await;
                continue;
            }
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            let Some(request) = self.next(&place, &text, answer) else { return Page { url: place, text } };
            let from = std::mem::replace(&mut place, request.url.clone());
            reply = self.open(request, Some(&from)).await;
        }
        panic!("{MOST_STEPS} steps, and no end in sight");
    }

    /// What the page leads to: where it sends the browser by itself, or its form, filled in.
    fn next(&mut self, place: &Url, page: &str, answer: Answer) -> Option<Request> {
        if let Some((_, rest)) = page.split_once(r#"http-equiv="refresh""#) {
            self.at_provider = true;
            let mut next = place.join(attribute(rest, "content")?.strip_prefix("0; url=")?).unwrap();
            if answer == Answer::ApproveByPost {
                next.query_pairs_mut().append_pair("response_mode", "form_post");
            }
            return Some(Request::get(next));
        }
        let Form { action, mut fields } = Form::first_of(page)?;
        let action = place.join(&action).unwrap();
        match fields.iter().find(|(name, _)| name == "prompt").map(|(_, value)| value.as_str()) {
            Some("login") => fields.extend([("login", self.user.as_str()), ("password", "anything")].map(owned)),
            Some("consent") if answer == Answer::Deny && self.at_provider => {
                return Some(Request::get(action.join(&format!("{}/abort", action.path())).unwrap()));
            }
            _ if page.contains(r#"name="decision""#) => fields.push(owned(("decision", "approve"))),
            _ => {}
        }
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Some(post(action, &fields))
    }

    /// `from`: the page whose form is posted. A POST across sites carries no cookie that is `SameSite=Lax`, as all are here.
    async fn open(&mut self, mut request: Request, from: Option<&Url>) -> Reply {
        let url = request.url.clone();
        let across = request.method == Method::POST && from.is_some_and(|from| from.host_str() != url.host_str());
        let sent = self.cookies.iter().filter(|cookie| !across && cookie.belongs_to(&url));
        let pairs: Vec<_> = sent.map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        if !pairs.is_empty() {
            request.headers.insert(COOKIE, HeaderValue::try_from(pairs.join("; ")).unwrap());
        }
        let reply = self.outbound.send(request).await.unwrap();
        for line in reply.headers.get_all(SET_COOKIE) {
            self.keep(Cookie::parse(&url, line.to_str().unwrap()));
        }
        reply
    }

    fn keep(&mut self, new: Cookie) {
        self.cookies.retain(|old| (&old.host, &old.path, &old.name) != (&new.host, &new.path, &new.name));
        if !new.value.is_empty() {
            self.cookies.push(new);
        }
    }
}

impl Cookie {
    /// Of the attributes only the path matters: everything here is a session, and cookies are removed by emptying them.
    fn parse(url: &Url, line: &str) -> Self {
        let mut parts = line.split(';').map(str::trim);
        let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).unwrap();
        let path = parts.find_map(|part| part.split_once('=').filter(|(name, _)| name.eq_ignore_ascii_case("path")));
        let path = path.map_or("/", |(_, path)| path);
        let host = url.host_str().unwrap().to_owned();
        Self { host, path: path.to_owned(), name: name.to_owned(), value: value.to_owned() }
    }

    /// RFC 6265 §5.1.4.
    fn belongs_to(&self, url: &Url) -> bool {
        let below = url.path().strip_prefix(&self.path);
        let inside = below.is_some_and(|rest| rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'));
        url.host_str() == Some(&self.host) && inside
    }
}

impl Form {
    /// Its action and its hidden fields. Both servers write attributes in double quotes.
    fn first_of(page: &str) -> Option<Self> {
        let (_, rest) = page.split_once("<form ")?;
        let (form, _) = rest.split_once("</form>")?;
        let (tag, inside) = form.split_once('>')?;
        let inputs = inside.split("<input ").skip(1).filter_map(|input| input.split_once('>'));
        let fields = inputs.filter_map(|(tag, _)| Some((attribute(tag, "name")?, attribute(tag, "value")?)));
        Some(Self { action: attribute(tag, "action")?, fields: fields.collect() })
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split_once(&format!("{name}=\""))?.1.split_once('"')?.0;
    // `&amp;` last, or an escaped `&amp;quot;` would be unescaped twice.
    Some(
        value
            .replace("&quot;", "\"")
            .replace("&#39;", "'")
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&amp;", "&"),
    )
}
