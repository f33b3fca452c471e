//! Private keys in the two forms that are met: PKCS #8, which is what this operator writes, and the older form of elliptic
//! curves alone (SEC 1), in which the existing suite keeps its keys. The cryptographic library reads the former only.

use rcgen::KeyPair;
use x509_parser::prelude::Pem;

/// How a key of the older form is marked.
const OLD: &str = "EC PRIVATE KEY";

/// What precedes a P-256 key in PKCS #8: version 0, the algorithm (an elliptic curve key) and its curve.
const P256: [u8; 24] = [
    0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];
/// The tag of a sequence in DER.
const SEQUENCE: u8 = 0x30;
/// The tag of bytes in DER.
const OCTET_STRING: u8 = 0x04;

/// Reads a private key.
///
/// # Errors
/// It has neither form, or is of another curve.
pub(super) fn read(pem: &str) -> Result<KeyPair, rcgen::Error> {
    let old = Pem::iter_from_buffer(pem.as_bytes()).filter_map(Result::ok).find(|block| block.label == OLD);
    match old {
        Some(block) => {
            let wrapped = element(SEQUENCE, &[P256.as_slice(), &element(OCTET_STRING, &block.contents)].concat());
            KeyPair::try_from(wrapped)
        }
        None => KeyPair::from_pem(pem),
    }
}

/// An element of DER.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let significant: Vec<u8> = length.iter().copied().skip_while(|byte| *byte == 0).collect();
    let mut der = vec![tag];
    match (content.len(), u8::try_from(significant.len())) {
        (0..=0x7f, _) => der.push(content.len().to_le_bytes()[0]),
        (_, Ok(count)) => {
            der.push(0x80 | count);
            der.extend(significant);
        }
        (_, Err(_)) => {}
    }
    der.extend(content);
    der
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;

    use super::*;

    /// A key as other programs write it: the curve is named in it.
    fn older(key: &KeyPair) -> String {
        let der = key.serialize_der();
        // The private key's 32 bytes follow their tag and length, the public key is what the library says. Nothing before them looks
        // like that; the random bytes behind may.
        let at = der.windows(2).position(|bytes| bytes == [0x04, 0x20]).expect("32 bytes in an octet string");
        let private = element(OCTET_STRING, &der[at + 2..at + 34]);
        let curve = element(0xa0, &P256[14..]);
        let public = element(0xa1, &element(0x03, &[&[0], key.public_key_raw()].concat()));
        let der = element(SEQUENCE, &[&[0x02, 0x01, 0x01], private.as_slice(), &curve, &public].concat());
        format!("-----BEGIN {OLD}-----\n{}\n-----END {OLD}-----\n", BASE64.encode(der))
    }

    #[test]
    fn both_forms_of_a_key_are_the_same_key() {
        /// One key in a thousand has the mark of the private key in its public one.
        const KEYS: usize = 5000;
        let key = KeyPair::generate().expect("a key");
        for _ in 0..KEYS {
            let key = KeyPair::generate().expect("a key");
            let read_old = read(&older(&key)).expect("the older form");
            assert_eq!(read_old.public_key_raw(), key.public_key_raw());
        }
        assert_eq!(read(&key.serialize_pem()).expect("PKCS #8").public_key_raw(), key.public_key_raw());
        assert!(read("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n").is_err());
        assert!(read("no key").is_err());
    }
}
