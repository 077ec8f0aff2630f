/* A PAM module that does something odd to user e2e-odd, and nothing to others: hang, print, crash, exit, ask, login. */
#include <security/pam_appl.h>
#include <security/pam_modules.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int question(pam_handle_t *pamh, int style)
{
    const struct pam_conv *conversation;
    struct pam_message message = {style, "And your mother's name?"};
    const struct pam_message *messages = &message;
    struct pam_response *response = NULL;
    if (pam_get_item(pamh, PAM_CONV, (const void **)&conversation) != PAM_SUCCESS)
        return PAM_CONV_ERR;
    int result = conversation->conv(1, &messages, &response, conversation->appdata_ptr);
    if (response)
        free(response->resp);
    free(response);
    return result;
}

int pam_sm_authenticate(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    static const char answer[] = "{\"version\":1,\"verdict\":\"right\",\"user\":\"e2e-odd\",\"groups\":[\"libvirt\"]}\n";
    const char *user = NULL, *what = argc ? argv[0] : "";
    if (pam_get_user(pamh, &user, NULL) != PAM_SUCCESS || strcmp(user, "e2e-odd"))
        return PAM_IGNORE;
    if (!strcmp(what, "hang"))
        for (;;)
            pause();
    if (!strcmp(what, "print"))
        for (int fd = 0; fd < 2; fd++)
            if (write(fd, answer, sizeof answer - 1) < 0)
                continue;
    if (!strcmp(what, "crash"))
        *(volatile int *)0 = 1;
    if (!strcmp(what, "exit"))
        exit(0);
    if (!strcmp(what, "ask")) {
        int result = PAM_SUCCESS;
        for (int asked = 0; asked < 3; asked++)
            if (question(pamh, PAM_PROMPT_ECHO_OFF) != PAM_SUCCESS)
                result = PAM_AUTH_ERR;
        return result == PAM_SUCCESS ? PAM_IGNORE : result;
    }
    if (!strcmp(what, "login"))
        return question(pamh, PAM_PROMPT_ECHO_ON) == PAM_SUCCESS ? PAM_IGNORE : PAM_AUTH_ERR;
    if (!strcmp(what, "become-root"))
        return pam_set_item(pamh, PAM_USER, "root") == PAM_SUCCESS ? PAM_SUCCESS : PAM_AUTH_ERR;
    return PAM_IGNORE;
}

int pam_sm_setcred(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    return PAM_IGNORE;
}
