//! A user with a browser, without a browser: follows redirects, keeps cookies as browsers do, and fills in forms.

use claviger::outbound::{Outbound, Reply, Request};
use http::{
    HeaderValue, Method, StatusCode,
    header::{COOKIE, LOCATION, SET_COOKIE},
};
use url::Url;

use crate::provider::{outbound, post};

const MOST_STEPS: usize = 20;

/// One browser profile of one user.
pub(crate) struct Browser {
    user: String,
    outbound: Outbound,
    cookies: Vec<Cookie>,
}

/// Belongs to a host with all its ports (RFC 6265 §8.5). That is its site too: hosts here are literal addresses.
struct Cookie {
    host: String,
    path: String,
    name: String,
    value: String,
}

/// What the user answers when asked for consent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Approve,
    Deny,
}

struct Form {
    action: String,
    fields: Vec<(String, String)>,
}

impl Browser {
    pub(crate) fn of(user: &str) -> Self {
        Self { user: user.to_owned(), outbound: outbound(), cookies: Vec::new() }
    }

    /// Opens `url` and does what the pages ask until the browser is sent to `end`, which is not opened.
    pub(crate) async fn visit(&mut self, url: &Url, end: &Url, answer: Answer) -> Url {
        let mut place = url.clone();
        let mut reply = self.open(Request::get(place.clone()), None).await;
        for _ in 0..MOST_STEPS {
            if let Some(location) = reply.headers.get(LOCATION) {
                place = place.join(location.to_str().unwrap()).unwrap();
                if place.origin() == end.origin() && place.path() == end.path() {
                    return place;
                }
                reply = self.open(Request::get(place.clone()), None).await;
                continue;
            }
            let page = String::from_utf8_lossy(&reply.body).into_owned();
            assert_eq!(reply.status, StatusCode::OK, "{place}: {page}");
            let (next, fields) = self.fill_in(&place, &page, answer);
            let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let request = if fields.is_empty() { Request::get(next.clone()) } else { post(next.clone(), &fields) };
            reply = self.open(request, Some(&place)).await;
            place = next;
        }
        panic!("{MOST_STEPS} steps, and no end in sight");
    }

    /// Where the page's form goes, and with what.
    fn fill_in(&self, place: &Url, page: &str, answer: Answer) -> (Url, Vec<(String, String)>) {
        let form = Form::first_of(page).unwrap_or_else(|| panic!("{place} leads nowhere: {page}"));
        let next = place.join(&form.action).unwrap();
        let prompt = form.fields.iter().find(|(name, _)| name == "prompt").map(|(_, value)| value.clone());
        let mut fields = form.fields;
        match prompt.as_deref() {
            Some("login") => {
                fields.push(("login".to_owned(), self.user.clone()));
                fields.push(("password".to_owned(), "anything".to_owned()));
            }
            Some("consent") if answer == Answer::Deny => {
                return (next.join(&format!("{}/abort", next.path())).unwrap(), Vec::new());
            }
            _ => {}
        }
        (next, fields)
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
