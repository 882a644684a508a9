//! The examples in the documentation are families that can be meant.

use claviger::{
    domain::ClientSecret,
    identity::{Family, IssuerName},
};
use serde::Deserialize;

use crate::{clock::ManualClock, platform::authenticator};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    identity: Vec<Family>,
}

fn examples() -> Vec<Example> {
    let page = include_str!("../../docs/identity.md");
    let blocks = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    blocks.map(|block| toml::from_str(block).unwrap_or_else(|error| unreachable!("{error}\n{block}"))).collect()
}

#[test]
fn each_documented_example_is_a_family_without_problems() {
    let examples = examples();
    assert_eq!(examples.len(), 7);
    for mut example in examples {
        assert_eq!(claviger::identity::problems(&example.identity), []);
        for sign_in in example.identity.iter_mut().filter_map(|family| family.sign_in.as_mut()) {
            assert!(sign_in.client_secret_file.is_some());
            sign_in.client_secret = Some(ClientSecret::new("from the file".to_owned()));
        }
        assert!(authenticator(example.identity, &ManualClock::new()).0.is_ok());
    }
}

#[test]
fn the_documented_templates_are_entras() {
    let examples = examples();
    let families = examples.iter().flat_map(|example| &example.identity);
    let issuers = families.flat_map(|family| family.issuers.iter().map(move |issuer| (&family.id, &issuer.issuer)));
    let templates = issuers.filter(|(_, name)| matches!(name, IssuerName::Template(_)));
    assert!(templates.map(|(id, _)| id.as_str()).eq(["entra", "entra", "entra"]));
}
