//! The contract with users and neighbouring programs: each line of it that needs API objects alone is a test named by its
//! id, against the API over HTTPS, in real time, within the line's own limits. What each line says and how it fares is
//! in docs/operator-tests.md.
//!
//! | file | ids |
//! |---|---|
//! | `installation` | 1746, 3152, 4612, 4616, 8235, external CA blank, image pull secrets absent |
//! | `drift` | 6254, 6255, 6256, 6308, 6309, 4613, 4617 |
//! | `placement` | 4927, 4928, bad toleration of infra and workloads |
//! | `configuration` | replicas 0, replicas 3-1-2, 6257, 6258, 6259, 6260, 6261, RoleAggregationStrategy, ContainerPathVolumes |
//! | `rollouts` | image pull secrets set, 4744, canary upgrade |
//! | `instancetypes` | common-instancetypes: deployed, owned, unknown ones deleted, changes reverted |
//! | `certificates` | external CA managed, 4099, 4101, 4103, 4104, 4105, 4106 |
//! | `removal` | 3146, 3683, single-replica custom resource |
//!
//! The tests of a file share a cluster and take turns.

mod certificates;
mod configuration;
mod drift;
mod fixture;
mod installation;
mod instancetypes;
mod placement;
mod removal;
mod rollouts;
