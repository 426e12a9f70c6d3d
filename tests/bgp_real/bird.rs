//! The BIRD announcer against BIRD.

use std::collections::BTreeMap;

use switchover_agent::announce::bird::{BirdAnnouncer, BirdSettings, BirdStyle};
use switchover_agent::announce::{Announcer, RouteAttributes};

use crate::bgp_lab::Lab;
use crate::{plain, routes, withdraw};

fn started(style: Option<BirdStyle>) -> Option<(Lab, BirdAnnouncer)> {
    let mut lab = Lab::new(&["bird", "birdc"])?;
    let file = lab.path("prefixes.conf");
    let settings = BirdSettings { socket: Some(lab.path("bird.ctl").into()), ..BirdSettings::new(&file) };
    let settings = BirdSettings { style: style.unwrap_or_else(|| settings.style.clone()), ..settings };
    let first = match &settings.style {
        BirdStyle::Sets { v4, v6, .. } => {
            format!("define {v4} = [192.0.2.255/32];\ndefine {v6} = [2001:db8::255/128];\n")
        }
        BirdStyle::Static { v4, v6 } => {
            format!("protocol static {v4} {{ ipv4; }}\nprotocol static {v6} {{ ipv6; }}\n")
        }
    };
    lab.file("prefixes.conf", &first);
    let config = format!("log stderr all;\nrouter id 10.0.0.1;\nprotocol device {{}}\ninclude \"{file}\";\n");
    lab.start_bird_with(&config);
    Some((lab, BirdAnnouncer::new("bird", settings).unwrap()))
}

#[tokio::test]
async fn prefixes_with_attributes_come_and_go_through_static_protocols() {
    let Some((lab, mut announcer)) = started(None) else { return };
    let attributes = RouteAttributes {
        med: Some(50),
        communities: vec!["65001:7".into(), "1:2:3".into(), "rt:1:2".into()],
        graceful_shutdown: true,
        ..RouteAttributes::default()
    };
    let mut desired = routes(&[("203.0.113.1/32", attributes)]);
    desired.extend(plain(&["2001:db8:53::/48"]));
    assert_eq!(announcer.set(&desired).await.unwrap().announced.len(), 2);
    assert_eq!(announcer.current().await.unwrap(), desired.keys().cloned().collect());
    let shown = lab.birdc("show route 203.0.113.1/32 all");
    for want in ["BGP.med: 50", "(65001,7)", "(65535,0)", "(1, 2, 3)", "(rt, 1, 2)"] {
        assert!(shown.contains(want), "{want} in {shown}");
    }
    let again = announcer.set(&desired).await.unwrap();
    assert!(again.announced.is_empty() && again.withdrawn.is_empty());
    announcer.shutdown(withdraw("test")).await;
    assert!(announcer.current().await.unwrap().is_empty());
}

#[tokio::test]
async fn sets_for_the_operators_filter_keep_their_dummy() {
    let style = BirdStyle::Sets {
        v4: "ACAST_V4".to_owned(),
        v6: "ACAST_V6".to_owned(),
        dummy_v4: "192.0.2.255/32".parse().unwrap(),
        dummy_v6: "2001:db8::255/128".parse().unwrap(),
    };
    let Some((lab, mut announcer)) = started(Some(style)) else { return };
    let desired = plain(&["203.0.113.1/32", "2001:db8:53::/48"]);
    announcer.set(&desired).await.unwrap();
    assert_eq!(announcer.current().await.unwrap(), desired.keys().cloned().collect());
    announcer.set(&BTreeMap::new()).await.unwrap();
    assert!(announcer.current().await.unwrap().is_empty());
    assert!(lab.birdc("eval ACAST_V4").contains("192.0.2.255/32"));
}

#[tokio::test]
async fn a_file_that_bird_refuses_is_taken_back_and_a_stopped_bird_is_not_empty() {
    let Some((mut lab, mut announcer)) = started(None) else { return };
    announcer.set(&plain(&["203.0.113.1/32"])).await.unwrap();
    let good = lab.log("prefixes.conf");
    let config = lab.log("bird.conf");
    lab.file("bird.conf", &format!("{config}\nnonsense;\n"));
    let error = announcer.set(&plain(&["203.0.113.2/32"])).await.unwrap_err();
    assert!(error.reason.contains("syntax error"), "{error}");
    assert_eq!(lab.log("prefixes.conf"), good);
    lab.kill("bird");
    assert!(announcer.current().await.is_err());
}
