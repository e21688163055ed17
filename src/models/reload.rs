//! Another configuration for a running server: only what differs is touched.

use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use super::live::Models;
use super::load::without_engine;
use super::member::Member;
use crate::config::{Config, LoadAt};
use crate::engine::Health;

/// What came of reading the configuration again. Models are loaded and unloaded in the background.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reloaded {
    /// Models that are new.
    pub added: Vec<String>,
    /// Models that are gone.
    pub removed: Vec<String>,
    /// Models whose configuration is another one; they are unloaded, and loaded again if they were.
    pub changed: Vec<String>,
    /// Models that nothing happens to.
    pub unchanged: Vec<String>,
    /// Tables whose changes need a restart of the server.
    pub restart: Vec<String>,
}

impl Models {
    /// Takes over another configuration; a file that was read and is wrong never gets here.
    pub fn reload(&self, next: Config) -> Reloaded {
        let next = Arc::new(next);
        let before = std::mem::replace(&mut *self.0.config.lock(), next.clone());
        let mut told = Reloaded {
            restart: restart(&before, &next),
            ..Reloaded::default()
        };
        let old = self.members();
        let mut members = Vec::with_capacity(next.models.len());
        let (mut leave, mut come) = (Vec::new(), Vec::new());
        for config in &next.models {
            let same = old.iter().find(|member| member.config.name == config.name);
            if let Some(member) = same.filter(|member| member.config == *config) {
                told.unchanged.push(config.name.clone());
                members.push(member.clone());
                continue;
            }
            let member = Arc::new(without_engine(config, &self.0.metrics));
            let list = if same.is_some() {
                &mut told.changed
            } else {
                &mut told.added
            };
            list.push(config.name.clone());
            let wanted = config.load == LoadAt::Startup || same.is_some_and(|member| member.is_up());
            if wanted && !member.is_elsewhere() {
                member.expect();
                come.push(member.clone());
            }
            members.push(member);
        }
        for member in old {
            if !members.iter().any(|kept| Arc::ptr_eq(kept, &member)) {
                if !next.models.iter().any(|config| config.name == member.config.name) {
                    told.removed.push(member.config.name.clone());
                }
                leave.push(member);
            }
        }
        *self.0.members.write() = members;
        self.publish();
        tracing::info!(
            added = told.added.join(", "),
            removed = told.removed.join(", "),
            changed = told.changed.join(", "),
            "the configuration was read again"
        );
        if !leave.is_empty() || !come.is_empty() {
            let models = self.clone();
            tokio::spawn(async move { models.exchange(leave, come).await });
        }
        told
    }

    /// Unloads some models, which requests do not see any more, then loads others.
    async fn exchange(&self, leave: Vec<Arc<Member>>, come: Vec<Arc<Member>>) {
        for member in leave {
            member.stop_loading().await;
            let _turn = self.0.turn.lock().await;
            self.take_down(&member, Health::Unloaded).await;
        }
        for member in come {
            self.bring_up(&member).await;
        }
    }
}

/// The tables with changes that a running server cannot make.
fn restart(before: &Config, next: &Config) -> Vec<String> {
    let mut tables = Vec::new();
    // What is read again for each request or load is no reason.
    let mut server = next.server.clone();
    server.autoload = before.server.autoload;
    server.load_timeout = before.server.load_timeout;
    server.watchdog = before.server.watchdog;
    server.api_keys.clone_from(&before.server.api_keys);
    server.admin_key.clone_from(&before.server.admin_key);
    server.metrics_key.clone_from(&before.server.metrics_key);
    server.strict_models = before.server.strict_models;
    if server != before.server {
        tables.push("[server]".to_owned());
    }
    let port = |config: &Config, name: &str| {
        let model = config.models.iter().find(|model| model.name == name);
        model.and_then(|model| model.port)
    };
    for model in &next.models {
        if model.port.is_some() && model.port != port(before, &model.name) {
            tables.push(format!("port of model `{}`", model.name));
        }
    }
    tables
}
