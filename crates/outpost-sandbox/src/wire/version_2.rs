//! What version 2 of the messages added: it never changes again. The rest is as in [`super::version_1`].

use super::{Request, Said, ToInit};

const FROZEN: &str = include_str!("version_2.txt");

#[test]
fn every_message_is_read_and_written_as_ever() {
    let mut kinds = [0, 0, 0];
    for line in FROZEN.lines() {
        let written = match line.split_once(' ').unwrap() {
            ("Request", text) => {
                kinds[0] += 1;
                serde_json::to_string(&serde_json::from_str::<Request>(text).unwrap())
            }
            ("Said", text) => {
                kinds[1] += 1;
                serde_json::to_string(&serde_json::from_str::<Said>(text).unwrap())
            }
            ("ToInit", text) => {
                kinds[2] += 1;
                serde_json::to_string(&serde_json::from_str::<ToInit>(text).unwrap())
            }
            (other, _) => panic!("{other}"),
        };
        assert_eq!(written.unwrap(), line.split_once(' ').unwrap().1);
    }
    assert_eq!(kinds, [3, 2, 1]);
}
