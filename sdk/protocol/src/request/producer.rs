//! Named producers: of all that publish to a topic under one name, the newest alone may.

use serde::{Deserialize, Serialize};

use crate::ids::ProducerId;

/// What the new owner of a producer's name publishes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedProducer {
    /// The producer's id, the same for as long as the engine knows the name. Its low 32 bits are 0, and the owner's to
    /// choose: whatever they are, it is this producer.
    #[serde(with = "id_bytes")]
    pub producer_id: ProducerId,
    /// What every batch of this owner carries, from 1 on: higher than that of every owner before it.
    pub epoch: u32,
}

/// The 16 bytes of a producer's id as they lie in the header of a batch; where texts are wanted, in hexadecimal.
mod id_bytes {
    use std::fmt;

    use serde::{Deserializer, Serializer, de};

    use super::ProducerId;

    pub(super) fn serialize<S: Serializer>(id: &ProducerId, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            // The digits of a number begin with its last byte.
            return serializer.collect_str(&format_args!("{:032x}", id.0.swap_bytes()));
        }
        serializer.serialize_bytes(&id.0.to_le_bytes())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ProducerId, D::Error> {
        // Whether texts are wanted is not known inside of an enum whose tag may come last, so either form is read.
        deserializer.deserialize_any(Either)
    }

    struct Either;

    impl de::Visitor<'_> for Either {
        type Value = ProducerId;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the 16 bytes of a producer's id")
        }

        fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<ProducerId, E> {
            let bytes = bytes.try_into().map_err(|_| E::invalid_length(bytes.len(), &self))?;
            Ok(ProducerId(u128::from_le_bytes(bytes)))
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<ProducerId, E> {
            let plain = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = u128::from_str_radix(text, 16).ok().filter(|_| plain);
            let number = number.ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))?;
            Ok(ProducerId(number.swap_bytes()))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_and_the_text_are_those_of_a_batch_s_header() {
        let opened = OpenedProducer { producer_id: ProducerId(0x0102_0304 << 32), epoch: 5 };
        let bytes = [0, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        let packed = rmp_serde::to_vec_named(&opened).unwrap();
        let (name, bin) = ([&[0xab][..], b"producer_id"].concat(), [&[0xc4, 16][..], &bytes].concat());
        assert_eq!(packed, [&[0x82][..], &name, &bin, &[0xa5], b"epoch", &[5]].concat());
        let text = r#"{"producer_id":"00000000040302010000000000000000","epoch":5}"#;
        assert_eq!(serde_json::to_string(&opened).unwrap(), text);
    }

    #[test]
    fn another_length_is_refused() {
        for text in ["0102", "+0000000040302010000000000000000", "0000000004030201000000000000000000"] {
            let json = format!(r#"{{"producer_id":"{text}","epoch":5}}"#);
            assert!(serde_json::from_str::<OpenedProducer>(&json).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn it_comes_back_from_bytes_and_text(id: u128, epoch: u32) {
            let opened = OpenedProducer { producer_id: ProducerId(id), epoch };
            let packed = rmp_serde::to_vec_named(&opened).unwrap();
            prop_assert_eq!(rmp_serde::from_slice::<OpenedProducer>(&packed).unwrap(), opened);
            let text = serde_json::to_string(&opened).unwrap();
            prop_assert_eq!(serde_json::from_str::<OpenedProducer>(&text).unwrap(), opened);
        }
    }
}
