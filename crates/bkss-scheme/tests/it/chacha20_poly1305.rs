//! The cipher of sealed readings against Wycheproof, called as the scheme calls it.

use chacha20poly1305::{
    AeadInOut, ChaCha20Poly1305, KeyInit,
    aead::{Nonce, Tag},
};

use crate::shared::{each_wycheproof, hex, hex_of, valid};

#[test]
fn valid_ciphertexts_open_and_are_what_sealing_yields_and_others_stay_closed() {
    each_wycheproof("chacha20_poly1305_test.json", |_, test| {
        let id = &test["tcId"];
        let Ok(nonce) = Nonce::<ChaCha20Poly1305>::try_from(&hex(&test["iv"])[..]) else {
            assert!(!valid(test), "test {id} has no nonce of 12 bytes");
            return;
        };
        let cipher = ChaCha20Poly1305::new(&hex_of(&test["key"]).into());
        let (associated, message) = (hex(&test["aad"]), hex(&test["msg"]));
        let tag = Tag::<ChaCha20Poly1305>::try_from(&hex(&test["tag"])[..]).unwrap();

        let mut opened = hex(&test["ct"]);
        let result =
            cipher.decrypt_inout_detached(&nonce, &associated, opened.as_mut_slice().into(), &tag);
        assert_eq!(result.is_ok(), valid(test), "test {id}");
        if valid(test) {
            assert_eq!(opened, message, "test {id}");
            let mut sealed = message;
            let sealed_tag = cipher
                .encrypt_inout_detached(&nonce, &associated, sealed.as_mut_slice().into())
                .unwrap();
            assert_eq!((sealed, sealed_tag), (hex(&test["ct"]), tag), "test {id}");
        }
    });
}
