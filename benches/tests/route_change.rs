//! Every route change arrives, and none loses a request. How long it takes is printed, not asserted.

use std::io::Write;

use mesh_benches::report::{millis, quantile};
use mesh_benches::world::World;
use mesh_benches::{Error, route_change};
use tokio::runtime::Builder;

#[test]
fn changes_arrive_and_lose_no_request() -> Result<(), Error> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let world = World::new()?;
    let mut took = runtime.block_on(route_change::measure(&world, 20))?;
    assert_eq!(took.len(), 20);
    let (p50, p99) = (millis(quantile(&mut took, 0.5)), millis(quantile(&mut took, 0.99)));
    writeln!(std::io::stdout().lock(), "20 route changes, without optimization: p50 {p50}, p99 {p99}")?;
    Ok(())
}
