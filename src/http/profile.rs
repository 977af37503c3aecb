//! `/debug/pprof/profile?seconds=30`: what this process spends its processor time on. For `system:masters`; with
//! `--auth kubernetes` for whom the cluster lets get this path (RBAC's `nonResourceURLs`), as kube-apiserver's own profile.

use super::{address::Query, auth::Identity, status::ApiError};
use crate::profile::{self, ProfileError};
use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use std::time::Duration;

/// Where it is.
pub const PATH: &str = "/debug/pprof/profile";

/// How long a profile takes, at most: less than a proxy's patience.
const SECONDS_MAX: u64 = 60;

/// What is asked.
#[derive(Debug, Deserialize)]
pub struct ProfileQuery {
    seconds: Option<u64>,
}

/// Takes a profile.
pub async fn take(identity: Identity, Query(query): Query<ProfileQuery>) -> Result<Response, ApiError> {
    identity.check_path(PATH).await?;
    let seconds = query.seconds.unwrap_or(30);
    if !(1..=SECONDS_MAX).contains(&seconds) {
        return Err(ApiError::bad_request(format!("seconds: must be 1 to {SECONDS_MAX}, got {seconds}")));
    }
    match profile::take(Duration::from_secs(seconds)).await {
        Ok(profile) => {
            let name = "attachment; filename=\"moorline.pb\"";
            Ok(([(header::CONTENT_TYPE, "application/octet-stream"), (header::CONTENT_DISPOSITION, name)], profile)
                .into_response())
        }
        Err(ProfileError::Busy) => Err(ApiError::too_many_requests()),
        Err(error @ (ProfileError::Sample(_) | ProfileError::Symbols(_))) => {
            tracing::warn!(%error, "a profile could not be taken");
            Err(ApiError::internal())
        }
    }
}
