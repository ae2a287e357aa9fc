//! Config bundles: what they hold, which are taken, and their digest. Pure.
use super::bundle_rules::{check_reference, filled, invalid, no_controls, text};
use super::error::WorkersError;
use super::model::ConfigBundleRef;
use super::profile::ProfileSelector;
use crate::base::hex::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A set of profiles and of what they may use, under an id and a digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigBundle {
    /// What it is.
    pub metadata: ConfigBundleMetadata,
    /// The profiles it declares.
    #[serde(default)]
    pub profiles: Vec<ConfigProfile>,
    /// What else it declares.
    #[serde(default)]
    pub declarations: Vec<ConfigDeclaration>,
}

/// What a bundle is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigBundleMetadata {
    /// Its id.
    pub id: String,
    /// Its digest, see [`ConfigBundle::digest`].
    pub digest: String,
    /// Which revision.
    pub revision: String,
    /// Of which workspace.
    pub workspace_id: String,
    /// When it was made, as its maker says.
    pub created_at: String,
    /// Where it comes from.
    pub provenance: ConfigBundleProvenance,
}

/// Where a bundle comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigBundleProvenance {
    /// Its maker.
    pub source: String,
    /// More about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A profile in a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigProfile {
    /// Which.
    pub selector: ProfileSelector,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// A declaration in a bundle. Recorded, not enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigDeclaration {
    /// Of what.
    pub kind: DeclarationKind,
    /// Its name.
    pub name: String,
    /// What it refers to.
    pub reference: String,
}

/// What can be declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum DeclarationKind {
    SecretRef,
    MountGrant,
    NetworkPolicy,
    ShellPolicy,
    GitPolicy,
    CapabilityGrant,
    Unsupported,
}

impl DeclarationKind {
    /// The kind on the wire, and the prefixes one of which its reference has.
    fn rules(self) -> (&'static str, &'static [&'static str]) {
        match self {
            DeclarationKind::SecretRef => ("secret_ref", &["secret:", "secret-ref:", "vault:", "keyring:"]),
            DeclarationKind::MountGrant => ("mount_grant", &["mount:", "mount-grant:"]),
            DeclarationKind::NetworkPolicy => ("network_policy", &["network:", "network-policy:"]),
            DeclarationKind::ShellPolicy => ("shell_policy", &["shell:", "shell-policy:"]),
            DeclarationKind::GitPolicy => ("git_policy", &["git:", "git-policy:"]),
            DeclarationKind::CapabilityGrant => ("capability_grant", &["capability:", "capability-grant:"]),
            DeclarationKind::Unsupported => ("unsupported", &[]),
        }
    }
}

impl ConfigBundle {
    /// What names this state of the bundle.
    pub fn reference(&self) -> ConfigBundleRef {
        ConfigBundleRef { id: self.metadata.id.clone(), digest: self.metadata.digest.clone() }
    }

    /// Whether a worker of this profile may refer to it.
    pub fn declares(&self, profile: &ProfileSelector) -> bool {
        self.profiles.iter().any(|declared| declared.selector == *profile)
    }

    /// SHA-256 over its items, one line each: parts joined by NUL, lines sorted by their bytes. The order
    /// of lists does not matter, and an absent label is an empty one. That no text has a control
    /// character in it is what keeps two bundles from having the same lines.
    pub fn digest(&self) -> String {
        let meta = &self.metadata;
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut lines = vec![
            ["id", &meta.id].join("\0"),
            ["revision", &meta.revision].join("\0"),
            ["workspace_id", &meta.workspace_id].join("\0"),
            ["created_at", &meta.created_at].join("\0"),
            ["provenance.source", &meta.provenance.source].join("\0"),
            ["provenance.detail", &or_empty(&meta.provenance.detail)].join("\0"),
        ];
        lines.extend(self.profiles.iter().map(|profile| {
            let key = match &profile.selector {
                ProfileSelector::RuntimeDefault => "runtime_default".to_owned(),
                ProfileSelector::Builtin(value) => ["builtin", value].join("\0"),
                ProfileSelector::Named(value) => ["named", value].join("\0"),
            };
            ["profile", &key, &or_empty(&profile.label)].join("\0")
        }));
        lines.extend(self.declarations.iter().map(|declaration| {
            ["declaration", declaration.kind.rules().0, &declaration.name, &declaration.reference].join("\0")
        }));
        lines.sort_unstable();
        let mut hash = Sha256::new();
        for line in lines {
            hash.update(line);
            hash.update("\n");
        }
        hex(&hash.finalize())
    }

    /// Whether we take it.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn check(&self) -> Result<(), WorkersError> {
        let meta = &self.metadata;
        check_reference(&self.reference())?;
        filled("revision", &meta.revision)?;
        filled("workspace_id", &meta.workspace_id)?;
        // Times are not held to the rules of texts, but neither may they forge the digest's lines.
        if meta.created_at.trim().is_empty() {
            return Err(invalid("config bundle created_at must not be empty"));
        }
        no_controls("created_at", &meta.created_at)?;
        filled("provenance.source", &meta.provenance.source)?;
        text("provenance.detail", meta.provenance.detail.as_deref().unwrap_or_default())?;
        for profile in &self.profiles {
            if profile.selector.is_blank() {
                let why = "profile selector must not be empty";
                return Err(WorkersError::InvalidProfile {
                    profile: profile.selector.to_string(),
                    bundle: Some(meta.id.clone()),
                    why,
                });
            }
            if let ProfileSelector::Builtin(value) | ProfileSelector::Named(value) = &profile.selector {
                text("profile selector", value)?;
            }
            text("profile label", profile.label.as_deref().unwrap_or_default())?;
        }
        self.declarations.iter().try_for_each(|declaration| self.check_declaration(declaration))?;
        let computed = self.digest();
        if computed == meta.digest {
            return Ok(());
        }
        Err(WorkersError::DigestMismatch {
            bundle: meta.id.clone(),
            expected: meta.digest.clone(),
            got: computed,
        })
    }

    fn check_declaration(&self, declaration: &ConfigDeclaration) -> Result<(), WorkersError> {
        let (kind, prefixes) = declaration.kind.rules();
        filled("declaration name", &declaration.name)?;
        let reference = declaration.reference.as_str();
        let unsupported = || WorkersError::UnsupportedDeclaration {
            bundle: self.metadata.id.clone(),
            kind,
            name: declaration.name.clone(),
        };
        if prefixes.is_empty() {
            return Err(unsupported());
        }
        filled("declaration reference", reference)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.@+".contains(c);
        if !reference.chars().all(allowed) || reference.to_ascii_lowercase().contains(".yoi") {
            return Err(invalid("config bundle declaration reference contains characters it may not have"));
        }
        let has_prefix = |prefix: &str| reference.strip_prefix(prefix).is_some_and(|rest| !rest.is_empty());
        if prefixes.iter().any(|prefix| has_prefix(prefix)) { Ok(()) } else { Err(unsupported()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle() -> ConfigBundle {
        let text = |text: &str| text.to_owned();
        let mut bundle = ConfigBundle {
            metadata: ConfigBundleMetadata {
                id: text("b"),
                digest: String::new(),
                revision: text("1"),
                workspace_id: text("w"),
                created_at: text("t"),
                provenance: ConfigBundleProvenance { source: text("s"), detail: None },
            },
            profiles: Vec::new(),
            declarations: Vec::new(),
        };
        bundle.metadata.digest = bundle.digest();
        bundle
    }

    fn refused(change: impl FnOnce(&mut ConfigBundle)) -> String {
        let mut bundle = bundle();
        change(&mut bundle);
        if bundle.metadata.digest == super::tests::bundle().metadata.digest {
            bundle.metadata.digest = bundle.digest();
        }
        bundle.check().unwrap_err().to_string()
    }

    #[test]
    fn the_digest_is_the_known_one_and_order_does_not_matter() {
        assert_eq!(bundle().digest(), "8de1c381f85bcdc23caecc4109d030cd20032b0631885914a869c6c795946ee7");
        assert!(bundle().check().is_ok());
        let profile = |value: &str, label: Option<&str>| ConfigProfile {
            selector: ProfileSelector::Named(value.to_owned()),
            label: label.map(str::to_owned),
        };
        let mut one = bundle();
        one.profiles = vec![profile("x", None), profile("y", Some(""))];
        let mut other = bundle();
        other.profiles = vec![profile("y", None), profile("x", Some(""))];
        assert_eq!(one.digest(), other.digest());
        other.profiles.push(profile("x", None));
        assert_ne!(one.digest(), other.digest(), "duplicates count");
    }

    #[test]
    fn ids_and_digests_have_their_form() {
        for id in ["", " b", "b ", "-b", ".b", "b/c", "b c", "\u{fc}", &"b".repeat(129)] {
            assert!(refused(|b| b.metadata.id = id.to_owned()).contains("bundle id"), "{id}");
        }
        let upper = bundle().metadata.digest.to_uppercase();
        for digest in ["", "abc", &format!("sha256:{}", &upper[7..]), &upper, &"g".repeat(64)] {
            assert!(refused(|b| b.metadata.digest = digest.to_owned()).contains("bundle digest"), "{digest}");
        }
        let other = "0".repeat(64);
        let text = refused(|b| b.metadata.digest.clone_from(&other));
        let known = "8de1c381f85bcdc23caecc4109d030cd20032b0631885914a869c6c795946ee7";
        assert_eq!(text, format!("config bundle `b` digest mismatch: expected {other}, got {known}"));
    }

    #[test]
    fn texts_name_no_place_on_a_machine() {
        for bad in [
            "/etc",
            "~/x",
            "\\\\host\\x",
            "C:\\x",
            "a.CACHE",
            "x.sock",
            "a/sock",
            "a\\sock",
            "x/run/y",
            "x\\Run\\y",
            "a/sessions/b",
            "SOCKET=1",
            "session_path",
            "Cache_Path",
            "a\nb",
            "a\0",
            "\u{85}x",
            "",
            "  ",
        ] {
            assert!(
                refused(|b| b.metadata.revision = bad.to_owned()).starts_with("invalid request: "),
                "{bad:?}"
            );
            assert!(refused(|b| b.metadata.provenance.source = bad.to_owned()).contains("source"), "{bad:?}");
        }
        assert!(refused(|b| b.metadata.workspace_id = "x".repeat(2049)).contains("longer than 2048"));
        for bad in ["a\nb", "a\0b", "", " "] {
            assert!(refused(|b| b.metadata.created_at = bad.to_owned()).contains("created_at"), "{bad:?}");
        }
        let mut fine = bundle();
        fine.metadata.revision = format!(" {} ", "x".repeat(2048));
        fine.metadata.created_at = "/run/at noon".to_owned();
        fine.metadata.digest = fine.digest();
        assert!(fine.check().is_ok());
    }

    #[test]
    fn declarations_have_their_prefix_and_something_behind_it() {
        use DeclarationKind::*;
        let with = |kind, reference: &str| {
            let mut bundle = bundle();
            let (name, reference) = ("n".to_owned(), reference.to_owned());
            bundle.declarations.push(ConfigDeclaration { kind, name, reference });
            bundle.metadata.digest = bundle.digest();
            bundle.check().map_err(|error| error.to_string())
        };
        for (kind, reference) in [
            (SecretRef, "secret:a"),
            (SecretRef, "keyring:a.b@c+d_e-F"),
            (MountGrant, "mount-grant:x"),
            (NetworkPolicy, "network:x"),
            (ShellPolicy, "shell-policy:x"),
            (GitPolicy, "git:x"),
            (CapabilityGrant, "capability-grant:x"),
        ] {
            assert_eq!(with(kind, reference), Ok(()), "{reference}");
        }
        let unsupported = "config bundle `b` contains unsupported declaration `git_policy` named `n`";
        for reference in ["secret:a", "git:", "x", "Git:x"] {
            assert_eq!(with(GitPolicy, reference), Err(unsupported.to_owned()), "{reference}");
        }
        assert!(with(Unsupported, "git:x").unwrap_err().contains("`unsupported` named `n`"));
        for reference in ["git:a b", "git:a/b", "git:\u{fc}", "git:.yoi", "git:a.cache", "git:*", ""] {
            assert!(with(GitPolicy, reference).unwrap_err().starts_with("invalid request"), "{reference}");
        }
    }
}
