//! The chart: both helms render it, Kubernetes takes what comes out, and what cannot be meant is refused by name.

#![expect(clippy::unwrap_used, reason = "set-up that fails fails the test")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tools::{search_path, there_is};

#[path = "support/tools.rs"]
mod tools;

const HELMS: [&str; 2] = ["helm3", "helm4"];
/// From the oldest that the chart names to the newest that the schemas know.
const KUBERNETES: [&str; 4] = ["1.27", "1.30", "1.34", "1.37"];
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/helm/claviger");

fn are_there() -> bool {
    HELMS.into_iter().chain(["kubernetes-validate"]).all(there_is)
}

fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", search_path());
    command
}

fn claviger() -> Command {
    Command::new(env!("CARGO_BIN_EXE_claviger"))
}

fn values(name: &str) -> String {
    format!("{CHART}/ci/{name}-values.yaml")
}

fn text_of(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|stream| String::from_utf8_lossy(stream).into_owned()).concat()
}

fn template(helm: &str, name: &str, more: &[&str]) -> Output {
    let arguments = ["template", "broker", CHART, "--namespace", "claviger", "--values", &values(name)];
    program(helm).args(arguments).args(more).output().unwrap()
}

fn render(helm: &str, name: &str) -> String {
    let output = template(helm, name, &[]);
    assert!(output.status.success(), "{}", text_of(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn feed(command: &mut Command, input: &str) -> Output {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The documents of a YAML text. The reader comes with the validator.
fn documents(yaml: &str) -> Vec<Value> {
    const READ: &str =
        "import json,sys,yaml; json.dump([each for each in yaml.safe_load_all(sys.stdin) if each], sys.stdout)";
    let output = feed(program("python").args(["-c", READ]), yaml);
    assert!(output.status.success(), "{}", text_of(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn of_kind(kind: &str, yaml: &str) -> Value {
    documents(yaml).into_iter().find(|document| document["kind"] == kind).unwrap()
}

/// The configuration file that the broker will read.
fn configuration(yaml: &str) -> String {
    of_kind("ConfigMap", yaml)["data"]["claviger.toml"].as_str().unwrap().to_owned()
}

/// What is wrong with the manifests for that Kubernetes. A kind that it does not know is only warned of.
fn objections(manifests: &str, kubernetes: &str) -> Option<String> {
    let output = feed(program("kubernetes-validate").args(["--strict", "-k", kubernetes, "-"]), manifests);
    let said = text_of(&output);
    (!output.status.success() || said.contains("WARN") || !said.contains("passed")).then_some(said)
}

#[test]
fn both_helms_find_nothing_and_render_the_same() {
    if !are_there() {
        return;
    }
    for name in ["small", "full"] {
        for helm in HELMS {
            let linted = program(helm).args(["lint", "--strict", CHART, "--values", &values(name)]).output().unwrap();
            let said = text_of(&linted);
            assert!(
                linted.status.success() && !said.contains("Fail") && !said.contains("WARN"),
                "{helm} {name}: {said}"
            );
        }
        // They differ in blank lines between documents.
        let [older, newer] = HELMS.map(|helm| documents(&render(helm, name)));
        assert_eq!(older, newer, "{name}");
    }
}

#[test]
fn every_kubernetes_takes_the_manifests() {
    if !are_there() {
        return;
    }
    for name in ["small", "full"] {
        let manifests = render("helm4", name);
        for kubernetes in KUBERNETES {
            assert_eq!(objections(&manifests, kubernetes), None, "{name}");
        }
    }
    let sound = render("helm4", "full");
    for (from, to) in [
        ("terminationGracePeriodSeconds:", "terminationGracePeriodSecond:"),
        ("apiVersion: policy/v1\n", "apiVersion: policy/v1beta1\n"),
        ("kind: StatefulSet", "kind: StatefulSets"),
    ] {
        let wrong = sound.replace(from, to);
        assert_ne!(wrong, sound);
        assert!(objections(&wrong, KUBERNETES[0]).is_some(), "{to} passed");
    }
}

#[test]
fn a_wrong_value_is_refused_with_its_name_and_the_cure() {
    if !are_there() {
        return;
    }
    for (setting, said) in [
        ("replicas=2", &["replicas: 2", "one process", "set 1"][..]),
        ("servce.type=ClusterIP", &["servce", "not allowed"]),
        ("service.type=Internal", &["type", "ClusterIP", "NodePort"]),
        ("terminationGracePeriodSeconds=30", &["terminationGracePeriodSeconds", "31"]),
        ("tls.plaintext=yes", &["plaintext", "boolean"]),
        ("tls.plaintext=false", &["tls.existingSecret", "tls.plaintext"]),
        ("tls.existingSecret=both", &["tls.existingSecret", "tls.plaintext"]),
        ("tls.clientCertificates=required", &["tls.existingSecret", "ca.crt"]),
        ("rootKey.existingSecret=", &["rootKey.existingSecret", "generate-key"]),
        ("image.repository=", &["image.repository"]),
        ("persistence.size=8GB", &["size", "pattern"]),
        ("config.grcp.rate=1", &["config", "grcp"]),
        ("config.grpc.listen=0.0.0.0:1", &["config.grpc.listen", "remove it"]),
        ("config.providers[0].client_secret_file=x", &["client_secret_file", "clientSecrets.providers"]),
        ("clientSecrets.providers.gihub.secret=a,clientSecrets.providers.gihub.key=b", &["gihub", "it has: github"]),
        ("clientSecrets.signIn.platform.secret=a,clientSecrets.signIn.platform.key=b", &["signIn.platform"]),
        ("userId=0", &["userId", "1"]),
    ] {
        for helm in HELMS {
            let output = template(helm, "small", &["--set", setting]);
            let told = text_of(&output);
            assert!(!output.status.success(), "{helm}: {setting} passed");
            for part in said {
                // JSON schema libraries differ in the case of their words.
                assert!(
                    told.to_lowercase().contains(&part.to_lowercase()),
                    "{helm}: {setting}: {part} is not in {told}"
                );
            }
        }
    }
}

#[test]
fn the_configuration_is_the_values_and_what_the_chart_sets() {
    if !are_there() {
        return;
    }
    let given = fs::read_to_string(values("full")).unwrap();
    let mut expected = documents(&given)[0]["config"].clone();
    let tls =
        json!({ "certificate_file": "/run/claviger-tls/tls.crt", "private_key_file": "/run/claviger-tls/tls.key" });
    expected["http"]["listen"] = "0.0.0.0:8080".into();
    expected["http"]["tls"] = tls.clone();
    expected["grpc"]["listen"] = "0.0.0.0:50051".into();
    expected["grpc"]["tls"] = tls;
    expected["grpc"]["tls"]["client_ca_file"] = "/run/claviger-tls/ca.crt".into();
    expected["grpc"]["tls"]["client_certificates"] = "optional".into();
    expected["store"]["directory"] = "/var/lib/claviger/store".into();
    expected["sealing"] = json!({ "root_keys": ["/run/claviger/newer.key", "/run/claviger/key"] });
    expected["providers"][0]["client_secret_file"] = "/run/claviger/provider.github".into();
    expected["identity"][0]["sign_in"]["client_secret_file"] = "/run/claviger/sign-in.platform".into();
    for helm in HELMS {
        let rendered: Value = toml::from_str(&configuration(&render(helm, "full"))).unwrap();
        assert_eq!(rendered, expected, "{helm}");
    }
}

#[test]
fn what_is_rendered_is_what_serve_takes() {
    if !are_there() {
        return;
    }
    let directory = TempDir::with_prefix("claviger-helm-").unwrap();
    let place = directory.path();
    fs::create_dir(place.join("tls")).unwrap();
    for key in ["root.key", "key", "newer.key"] {
        assert!(claviger().arg("generate-key").arg(place.join(key)).status().unwrap().success());
    }
    let certificate = rcgen::generate_simple_self_signed(["claviger.example.com".to_owned()]).unwrap();
    let (public, private) = (certificate.cert.pem(), certificate.signing_key.serialize_pem());
    for (file, text) in [
        ("provider.github", "secret"),
        ("sign-in.platform", "secret"),
        ("tls/tls.crt", &public),
        ("tls/ca.crt", &public),
        ("tls/tls.key", &private),
    ] {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(place.join(file)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
    let file = place.join("claviger.toml");
    let here = place.to_str().unwrap();
    for name in ["small", "full"] {
        let rendered = configuration(&render("helm4", name));
        let text = rendered.replace("/run/claviger-tls", &format!("{here}/tls")).replace("/run/claviger", here);
        fs::write(&file, text.replace("/var/lib/claviger", here)).unwrap();
        let checked = claviger().arg("check-config").arg(&file).output().unwrap();
        assert!(checked.status.success(), "{name}: {}", text_of(&checked));
    }
    let wrong = fs::read_to_string(&file).unwrap().replace("rate = 200", "rate = 200.0");
    fs::write(&file, wrong).unwrap();
    assert_eq!(claviger().arg("check-config").arg(&file).status().unwrap().code(), Some(78));
}

#[test]
fn the_schema_knows_the_sections_of_the_configuration() {
    let read = |file: &str| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let schema: Value = serde_json::from_str(&read("helm/claviger/values.schema.json")).unwrap();
    let example: toml::Table = toml::from_str(&read("claviger.example.toml")).unwrap();
    let sections = schema["properties"]["config"]["properties"].as_object().unwrap();
    assert_eq!(sections.keys().collect::<BTreeSet<_>>(), example.keys().collect());
}

#[test]
fn the_pod_may_nothing_that_it_does_not_need() {
    if !are_there() {
        return;
    }
    for name in ["small", "full"] {
        let set = of_kind("StatefulSet", &render("helm4", name));
        let pod = &set["spec"]["template"]["spec"];
        assert_eq!(set["spec"]["replicas"], 1);
        assert_eq!(pod["automountServiceAccountToken"], false);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert!(pod["terminationGracePeriodSeconds"].as_u64() > Some(30));
        for container in ["initContainers", "containers"].iter().flat_map(|kind| pod[kind].as_array().unwrap()) {
            let confined = &container["securityContext"];
            assert_eq!(confined["readOnlyRootFilesystem"], true);
            assert_eq!(confined["allowPrivilegeEscalation"], false);
            assert_eq!(confined["capabilities"], json!({ "drop": ["ALL"] }));
            assert!(container["resources"]["limits"]["memory"].is_string());
        }
        let broker = &pod["containers"][0];
        let mounts = broker["volumeMounts"].as_array().unwrap();
        assert!(mounts.iter().all(|mount| mount["name"] != "given"), "it sees copies that are its user's alone");
        assert!(mounts.iter().all(|mount| mount["readOnly"] == true || mount["name"] == "store"));
        assert_ne!(broker["readinessProbe"], broker["livenessProbe"]);
    }
}
