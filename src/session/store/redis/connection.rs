//! The way to the data, whatever the servers are.

use redis::aio::ConnectionLike;
use redis::{Cmd, Pipeline, RedisFuture, Value};

use super::cluster::Cluster;
use super::link::{Link, Target};
use super::replicas::ReplicasWanted;
use super::topology::Topology;

/// Connections that are made when they are first needed. Clones share them.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one primary that has it all.
    One(Link),
    /// To each primary that has a share.
    Many(Cluster),
}

impl Connection {
    /// Connects to nothing yet.
    pub(super) fn new(topology: &Topology, replicas: ReplicasWanted) -> Self {
        match topology {
            Topology::Single(client) => Self::One(Link::new(Target::Server(client.clone()), replicas)),
            Topology::Sentinel(sentinels) => {
                Self::One(Link::new(Target::Master(sentinels.clone()), replicas))
            }
            Topology::Cluster(seeds) => Self::Many(Cluster::new(seeds.clone(), replicas)),
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        Box::pin(async move {
            match self {
                Self::One(link) => link.send(command).await,
                Self::Many(cluster) => cluster.send(command).await,
            }
        })
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        Box::pin(async move {
            match self {
                Self::One(link) => link.send_all(pipeline, offset, count).await,
                Self::Many(cluster) => cluster.send_all(pipeline, offset, count).await,
            }
        })
    }

    /// Asked by nobody who has several: a connection selects its database when it is made.
    fn get_db(&self) -> i64 {
        0
    }
}
