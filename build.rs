//! Compiles `proto/` without protoc, and keeps `Debug` away from every message that can hold a secret: one with a
//! `debug_redact` field, or with a field of such a message.

use std::{collections::BTreeSet, env, error::Error, fs, path::Path};

use protox::{
    Compiler,
    prost_reflect::{DescriptorPool, FieldDescriptor, Kind, Value},
};

const FILES: &[&str] = &["token_broker", "connection", "watch", "operations", "error"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true);
    for file in FILES {
        compiler.open_file(format!("proto/claviger/v1/{file}.proto"))?;
    }

    let secret = secret_messages(&compiler.descriptor_pool());
    tonic_prost_build::configure()
        .skip_debug(secret)
        .extern_path(".google.rpc", "::tonic_types::pb")
        .compile_fds(compiler.file_descriptor_set())?;

    // What reflection serves needs no comments, but does need the options that the typed set has dropped.
    compiler.include_source_info(false);
    #[expect(clippy::disallowed_methods, reason = "the environment is how cargo talks to a build script")]
    let out_dir = env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    fs::write(Path::new(&out_dir).join("claviger.v1.bin"), compiler.encode_file_descriptor_set())?;
    Ok(())
}

/// The full names, with a leading dot, of all messages that can hold a secret at any depth.
fn secret_messages(pool: &DescriptorPool) -> BTreeSet<String> {
    let mut secret = BTreeSet::new();
    loop {
        let known = secret.len();
        for message in pool.all_messages() {
            let holds = |field: FieldDescriptor| match field.kind() {
                Kind::Message(inner) => secret.contains(&format!(".{}", inner.full_name())),
                _ => is_redacted(&field),
            };
            if message.fields().any(holds) {
                secret.insert(format!(".{}", message.full_name()));
            }
        }
        if secret.len() == known {
            return secret;
        }
    }
}

fn is_redacted(field: &FieldDescriptor) -> bool {
    field.options().get_field_by_name("debug_redact").is_some_and(|value| *value == Value::Bool(true))
}
