//! The flags of every command that asks a server: which server, as whom, in which namespace.

use crate::client::{Client, Connection};
use clap::Args;
use secrecy::SecretString;
use std::{convert::Infallible, path::PathBuf, time::Duration};

/// Which server is asked, and as whom.
///
/// The server is that of --server; else that of the kubeconfig's current context, or of --context; else http://127.0.0.1:8460.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Server")]
pub struct Remote {
    /// Address of the server: Moorline's own, or a kube-apiserver that serves moorline.dev.
    #[arg(short, long, env = "MOORLINE_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// Namespace; else that of the kubeconfig's context, else `default`.
    #[arg(short, long, env = "MOORLINE_NAMESPACE")]
    pub namespace: Option<String>,
    /// Bearer token. Better in a variable or a file than on a command line, which others can see.
    #[arg(long, env = "MOORLINE_TOKEN", hide_env_values = true, value_parser = secret)]
    pub token: Option<SecretString>,
    /// File with a bearer token. --token goes before it.
    #[arg(long, env = "MOORLINE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// File of certificates that vouch for the server.
    #[arg(long, env = "MOORLINE_CERTIFICATE_AUTHORITY", value_name = "FILE")]
    pub certificate_authority: Option<PathBuf>,
    /// Take any certificate from the server: whoever sits between can read and change everything.
    #[arg(long)]
    pub insecure_skip_tls_verify: bool,
    /// A kubeconfig; else the files of KUBECONFIG, else ~/.kube/config.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig instead of its current one.
    #[arg(long)]
    pub context: Option<String>,
    /// How long to wait for an answer.
    #[arg(long, env = "MOORLINE_REQUEST_TIMEOUT", value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub request_timeout: Duration,
}

#[expect(clippy::unnecessary_wraps, reason = "clap wants a parser that could fail")]
fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(SecretString::from(text))
}

/// A span of time as kubectl takes it: `30s`, `2m`, or seconds alone. At least a second, at most a day.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic()) {
        number if number.len() == text.len() => (number, 1),
        number => match &text[number.len()..] {
            "s" => (number, 1),
            "m" => (number, 60),
            "h" => (number, 3_600),
            unit => return Err(format!("the unit must be s, m or h, got {unit:?}")),
        },
    };
    let number: u64 = number.parse().map_err(|_| format!("must be a time like 30s, 2m or 1h, got {text:?}"))?;
    match number.checked_mul(unit) {
        Some(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        Some(_) | None => Err(format!("must be from 1s to 24h, got {text:?}")),
    }
}

impl Remote {
    /// A client; asks nobody yet.
    pub async fn client(&self) -> anyhow::Result<Client> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let connection = Connection {
            server: given(&self.server),
            token: self.token.clone(),
            token_file: self.token_file.clone().filter(|_| self.token.is_none()),
            certificate_authority: self.certificate_authority.clone(),
            insecure_skip_tls_verify: self.insecure_skip_tls_verify,
            kubeconfig: self.kubeconfig.clone(),
            context: given(&self.context),
            timeout: self.request_timeout,
        };
        Ok(connection.client().await?)
    }

    /// The namespace that is meant.
    pub fn namespace<'a>(&'a self, client: &'a Client) -> &'a str {
        self.asked_namespace().unwrap_or(client.namespace())
    }

    /// The namespace that was said.
    pub fn asked_namespace(&self) -> Option<&str> {
        self.namespace.as_deref().filter(|namespace| !namespace.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_kubectl_reads_them() {
        for (text, seconds) in [("30s", 30), ("2m", 120), ("1h", 3_600), ("7", 7)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "s", "0", "0s", "25h", "-1s", "1.5s", "3d", "99999999999999999999h", "18446744073709551615h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
