//! `claviger doctor`: what is wrong with an installation, and what cures it.

use std::{path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use serde_json::json;

use super::{
    edge,
    options::Format,
    output::{Printer, harmless},
};
use crate::{
    app::{Finding, NotConfigured, SystemClock, Verdict, examine},
    config::{self, Config, Problem},
    sealing::Random,
};

/// Look for what is wrong with an installation, and say what cures it
///
/// Looks at the root key, the data directory, the store and its audit chain, the certificates, the issuers and
/// providers, and the clock. Run it as the user that the broker runs as. The store of a running broker is not opened.
/// Exits with 0 when nothing fails, with 1 when something does, with 78 when the configuration itself is wrong.
#[derive(Debug, Args)]
pub struct Doctor {
    /// The configuration that the broker is started with, as TOML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Format,
}

impl Doctor {
    pub(super) async fn run(self) -> ExitCode {
        match self.examine().await {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => edge(Err(error)),
        }
    }

    /// Whether nothing fails.
    async fn examine(&self) -> anyhow::Result<bool> {
        let (config, of_files, _) = Config::load_apart(&self.config, &config::variables()).map_err(NotConfigured)?;
        let mut findings = examine(&config, Arc::new(SystemClock), &Random::system()).await;
        findings.extend(of_files.iter().filter_map(unexamined));
        let failed = findings.iter().filter(|finding| finding.verdict == Verdict::Fail).count();
        let printer = Printer::new(self.output);
        if printer.is_json() {
            let documents: Vec<_> = findings.iter().map(document).collect();
            printer.document(&json!({ "findings": documents, "failed": failed }))?;
        } else {
            findings.iter().try_for_each(|finding| printer.line(&line(finding)))?;
        }
        Ok(failed == 0)
    }
}

/// What is wrong with a file that none of the checks looks at.
fn unexamined(problem: &Problem) -> Option<Finding> {
    let subject = problem.key.to_string();
    let examined = ["sealing.", "grpc.tls", "http.tls"].iter().any(|key| subject.starts_with(key));
    (!examined).then(|| Finding {
        check: "configuration",
        subject,
        verdict: Verdict::Fail,
        detail: problem.fault.to_string(),
        cure: None,
    })
}

fn line(Finding { check, subject, verdict, detail, cure }: &Finding) -> String {
    let told = format!("{:<5} {check:<15} {}: {}", verdict.to_string(), harmless(subject), harmless(detail));
    match cure {
        Some(cure) => format!("{told}\n      {:<15} {}", "", harmless(cure)),
        None => told,
    }
}

fn document(Finding { check, subject, verdict, detail, cure }: &Finding) -> serde_json::Value {
    json!({
        "check": check, "subject": subject, "verdict": verdict.to_string(), "detail": detail, "cure": cure,
    })
}
