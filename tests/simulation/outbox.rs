//! The store's outbox as one gateway process reaches it.

use std::sync::Arc;

use async_trait::async_trait;
use cloakroom::clock::Timestamp;
use cloakroom::session::store::Unavailable;
use cloakroom::session::store::outbox::{Errand, Outbox};

use crate::store::NodeStore;

#[async_trait]
impl Outbox for NodeStore {
    async fn post(&self, errand: &Errand) -> Result<(), Unavailable> {
        let (world, node, errand) = (Arc::clone(&self.world), self.node, errand.clone());
        let posted = self.pass("post", None, async move {
            world.memory.post(&errand).await?;
            world.note_posted(node, &errand);
            Ok(())
        });
        posted.await
    }

    async fn fetch_due(&self, now: Timestamp, until: Timestamp) -> Result<Option<Errand>, Unavailable> {
        let (world, node) = (Arc::clone(&self.world), self.node);
        let fetched = self.pass("fetch_due", None, async move {
            let fetched = world.memory.fetch_due(now, until).await?;
            if let Some(errand) = &fetched {
                world.truth().note_errand(node, &errand.id, "fetched");
            }
            Ok(fetched)
        });
        fetched.await
    }

    async fn postpone(&self, id: &str, due_at: Timestamp) -> Result<(), Unavailable> {
        let (world, id) = (Arc::clone(&self.world), id.to_owned());
        self.pass("postpone", None, async move { world.memory.postpone(&id, due_at).await }).await
    }

    async fn strike(&self, id: &str) -> Result<(), Unavailable> {
        let (world, node, id) = (Arc::clone(&self.world), self.node, id.to_owned());
        let struck = self.pass("strike", None, async move {
            world.memory.strike(&id).await?;
            let mut truth = world.truth();
            truth.note_errand(node, &id, "struck");
            truth.errands.remove(&id);
            Ok(())
        });
        struck.await
    }

    async fn count_errands(&self) -> Result<u64, Unavailable> {
        let world = Arc::clone(&self.world);
        self.pass("count_errands", None, async move { world.memory.count_errands().await }).await
    }
}
