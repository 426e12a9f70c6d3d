//! What a resync costs: calls of the API, for one to four clusters and up to a thousand ingresses in each.

use crate::bench::{Instance, account, ingress};

#[tokio::test]
async fn calls_of_a_resync_do_not_grow_with_the_number_of_ingresses() {
    let places = ["eu", "us_east", "us_west", "asia"];
    let mut table =
        String::from("| clusters | 10 ingresses each | 100 each | 1,000 each |\n|---|---|---|---|\n");
    for clusters in 1..=places.len() {
        let mut row = Vec::new();
        for count in [10_usize, 100, 1000] {
            let server = account().await;
            let mut instances = Vec::new();
            for (number, place) in places.iter().take(clusters).enumerate() {
                let instance = Instance::new(&server, place, place, &[]);
                // A cluster has one ingress controller, with two addresses here.
                let given: Vec<_> = (0..count)
                    .map(|index| {
                        let address = format!("203.0.113.{}", number * 2 + index % 2 + 1);
                        let mut one = ingress(place, &[&address]);
                        one.name = format!("i{index}");
                        one
                    })
                    .collect();
                assert!(instance.pass(&given).await.is_good());
                instances.push((instance, given));
            }
            server.forget();
            for (instance, given) in &instances {
                assert!(instance.pass(given).await.is_good());
            }
            assert_eq!(server.writes(), []);
            row.push(server.seen().len());
        }
        table.push_str(&format!("| {clusters} | {} | {} | {} |\n", row[0], row[1], row[2]));
        assert_eq!(row, [2 * clusters; 3], "two reads of each instance");
    }
    println!("{table}");
    assert!(include_str!("../../README.md").contains(&table), "the README has another table than\n{table}");
}
