//! The floor: a bare loop of server-side applies of statuses, as the mirror does them, by a client that knows all beforehand.

use super::front::{Front, OURS, THEIRS};
use crate::place::Cost;
use anyhow::Context as _;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    core::{ApiResource, DynamicObject},
};
use moorline::{
    kubernetes::mirror::{CONTROLLER, MIRROR},
    v1alpha1::Chat,
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// As many at once as the mirror.
const AT_ONCE: usize = 16;

/// Objects that are like Moorline's.
pub struct Bare<'a> {
    front: &'a Front<'a>,
    api: Api<DynamicObject>,
}

impl<'a> Bare<'a> {
    /// Makes one for each of Moorline's, with its name and spec, and shows its status.
    pub async fn new(front: &'a Front<'a>) -> anyhow::Result<Self> {
        let api: Api<DynamicObject> = Api::namespaced_with(front.client.clone(), THEIRS, &ApiResource::erase::<Chat>(&()));
        let like = front.chats(OURS).await?;
        let params = PostParams { field_manager: Some(MIRROR.into()), dry_run: false };
        let make = |chat: &Chat| {
            let (api, params) = (&api, &params);
            let object = json!({
                "apiVersion": Chat::api_version(&()), "kind": Chat::kind(&()),
                "metadata": {"name": chat.name_any(), "annotations": chat.annotations()}, "spec": chat.spec,
            });
            async move { anyhow::Ok(api.create(params, &serde_json::from_value(object)?).await?) }
        };
        stream::iter(like.iter().map(make)).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
        let it = Self { front, api };
        it.follow().await?;
        Ok(it)
    }

    /// Shows what Moorline's objects show, on as many of these; answers how long that took, and how many seconds of processor.
    pub async fn follow(&self) -> anyhow::Result<(Duration, f64)> {
        let mut shown: HashMap<String, _> =
            self.front.chats(OURS).await?.into_iter().map(|chat| (chat.name_any(), chat.status)).collect();
        let mut patches = Vec::new();
        for chat in self.front.chats(THEIRS).await? {
            let name = chat.name_any();
            let status = shown.remove(&name).flatten().context("a chat without a status")?;
            let metadata =
                json!({"namespace": THEIRS, "name": name, "uid": chat.uid(), "resourceVersion": chat.resource_version()});
            let patch =
                json!({"apiVersion": Chat::api_version(&()), "kind": Chat::kind(&()), "metadata": metadata, "status": status});
            patches.push((name, patch));
        }
        let params = PatchParams::apply(CONTROLLER).force();
        // Tasks of their own, as the mirror's are.
        let apply = |(name, patch): (String, Value)| {
            let (api, params) = (self.api.clone(), params.clone());
            tokio::spawn(async move { api.patch_status(&name, &params, &Patch::Apply(&patch)).await })
        };
        let (began, before) = (Instant::now(), Cost::of(std::process::id())?.cpu);
        let mut answers = stream::iter(patches).map(apply).buffer_unordered(AT_ONCE);
        while let Some(answer) = answers.next().await {
            answer??;
        }
        Ok((began.elapsed(), Cost::of(std::process::id())?.cpu - before))
    }
}
