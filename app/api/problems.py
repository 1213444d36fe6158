"""Errors as every answer tells them: a code for programs, a sentence for people in both languages."""

from __future__ import annotations

from collections.abc import Mapping

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from app.drafts import DraftError
from app.errors import StoreError

log = structlog.get_logger(__name__)

MESSAGES: dict[str, tuple[int, str, str]] = {
    "bad_request": (400, "请求无法理解。", "The request cannot be understood."),
    "login_required": (401, "请先登录。", "Please log in first."),
    "wrong_credentials": (401, "账号或密码不正确。", "The account or the password is wrong."),
    "token_required": (
        401,
        "接入令牌缺失或不正确（DUTING_INGEST_TOKEN）。",
        "The ingest token is missing or wrong: see DUTING_INGEST_TOKEN.",
    ),
    "token_refused": (
        401,
        "令牌无效、已过期或已撤销。",
        "The token is unknown, has expired or was revoked.",
    ),
    "role_not_allowed": (403, "您的角色无权查看或操作。", "Your role may not see or do this."),
    "not_yours": (
        403,
        "只能放下自己跟进的预警；管理员可以放下任何人的。",
        "You can let go of your own alerts only; an administrator of anybody's.",
    ),
    "after_the_call": (
        403,
        "通话结束后才能评判这条预警。",
        "This alert can be judged once the call has ended.",
    ),
    "desk_only": (
        403,
        "嵌入的座席工作台只供座席登录，其他账号请在独立窗口登录。",
        "A desk in another page's frame lets in agents only; other accounts log in in a window of their own.",
    ),
    "appeal_after_the_call": (
        403,
        "通话结束后才能申诉。",
        "An appeal can be made once the call has ended.",
    ),
    "bad_origin": (403, "请求来自其他网站，已拒绝。", "The request came from another site and was refused."),
    "not_found": (404, "没有这个地址。", "There is nothing at this address."),
    "unknown_call": (404, "没有这通电话。", "There is no such call."),
    "unknown_utterance": (404, "没有这句话。", "There is no such utterance."),
    "no_original": (404, "这句话没有保留原文。", "The original of this text was not kept."),
    "unknown_alert": (404, "没有这条预警。", "There is no such alert."),
    "unknown_hint": (404, "没有这条提示。", "There is no such hint."),
    "unknown_whisper": (404, "没有这条耳语。", "There is no such whisper."),
    "unknown_account": (404, "没有这个账号。", "There is no such account."),
    "unknown_token": (404, "没有这个令牌。", "There is no such token."),
    "no_recording": (404, "这通电话没有录音。", "There is no recording of this call."),
    "method_not_allowed": (405, "这个地址不支持该操作。", "This address does not know that method."),
    "last_administrator": (
        409,
        "这是最后一个管理员，请先另设一个。",
        "This is the last administrator: make another one first.",
    ),
    "not_yourself": (
        409,
        "不能改自己的角色，也不能停用自己。",
        "You can neither change your own role nor disable yourself.",
    ),
    "owner_changed": (
        409,
        "这条预警的跟进人已经变了。",
        "Somebody else has taken this alert, or let it go, meanwhile.",
    ),
    "alert_changed": (
        409,
        "这条预警的状态已经变了，操作未生效。",
        "The alert has changed meanwhile, or does not allow this; nothing was done.",
    ),
    "offer_not_acceptable": (
        406,
        "需要只接收一路 Opus 音频的 SDP。",
        "Expected an offer that receives one audio track, in Opus.",
    ),
    "hint_answered": (
        409,
        "这条提示已经评价过，不能更改。",
        "This hint has been judged already; that stands.",
    ),
    "appealed_already": (
        409,
        "这条预警已经申诉过，或已不能申诉。",
        "There is an appeal against this alert already, or none is possible any more.",
    ),
    "appeal_over": (409, "已超过申诉期限。", "The time for an appeal is over."),
    "no_open_appeal": (
        409,
        "这条预警没有待答复的申诉。",
        "No appeal against this alert waits.",
    ),
    "call_ended": (409, "这通电话已经结束。", "The call has ended."),
    "agent_unknown": (
        409,
        "不知道这通电话是哪位座席的，耳语没人能看到。请让话务系统报送座席账号（agent）。",
        "It is not known whose call this is, so nobody would read it: the telephony has to name the agent's "
        "account (agent).",
    ),
    "agent_without_desk": (
        409,
        "这通电话的座席没有可用的座席账号，看不到耳语。请管理员开通与话务系统所报座席（agent）同名的账号。",
        "The call's agent has no open account of an agent, and would not read it: an administrator has to "
        "add one, named as the telephony names the agent.",
    ),
    "heard_elsewhere": (
        409,
        "这通电话由另一个网关接听，请在那里监听。",
        "This call is heard by another gateway: listen to it there.",
    ),
    "call_runs": (409, "通话还在进行。", "The call is still running."),
    "originals_not_kept": (
        409,
        "未设密钥（DUTING_PII_KEYS），被遮盖的原文没有保留。",
        "Originals of masked texts are not kept: no key is set (DUTING_PII_KEYS).",
    ),
    "original_locked": (
        409,
        "现有密钥都打不开这句话的原文。",
        "None of the present keys opens the original of this text.",
    ),
    "takeover_not_set_up": (
        409,
        "未设置接管地址（DUTING_TAKEOVER_URL），无法通知话务系统。",
        "No address to ask for take-overs is set (DUTING_TAKEOVER_URL).",
    ),
    "takeover_asked_already": (
        409,
        "已有人请求接管这通电话，正在等话务系统答复。",
        "Somebody has asked for this call already; the telephony's answer is awaited.",
    ),
    "too_many_notes": (
        409,
        "这通电话的备注已达上限（500 条），无法再写。",
        "This call has as many notes as a call may have: 500.",
    ),
    "another_etag": (412, "ETag 不属于这个会话。", "The ETag is not that of this session."),
    "too_large": (413, "请求过大。", "The request is too large."),
    "bad_range": (416, "请求的范围不在文件之内。", "The requested range is not within the file."),
    "expected_sdp": (
        415,
        "需要 SDP（application/sdp）。",
        "Expected an offer in SDP (application/sdp).",
    ),
    "expected_fragment": (
        415,
        "需要 ICE 候选片段（application/trickle-ice-sdpfrag）。",
        "Expected ICE candidates (application/trickle-ice-sdpfrag).",
    ),
    "invalid": (422, "请求的内容不符合要求。", "What was sent is not what is expected here."),
    "unknown_rule": (404, "没有这条规则。", "There is no such rule."),
    "unknown_pack": (404, "没有这个规则包。", "There is no such rule pack."),
    "unknown_draft": (404, "没有这份草稿。", "There is no such draft."),
    "unknown_publication": (404, "没有这个发布版本。", "There is no such published version."),
    "unknown_backtest": (404, "没有这次回测。", "There is no such backtest."),
    "own_draft": (
        403,
        "改过这份草稿的人不能批准它，请另一位管理员批准。",
        "Whoever had a hand in a draft cannot approve it: ask another administrator.",
    ),
    "draft_changed": (
        409,
        "这份草稿已经变了，请刷新后再操作。",
        "The draft has changed meanwhile; nothing was done. Look at it again.",
    ),
    "rules_moved": (
        409,
        "刚刚有别的规则包发布，请再试一次。",
        "Another pack was published at this moment; try again.",
    ),
    "too_many_drafts": (
        409,
        "未结束的草稿太多，请先处理一些。",
        "Too many drafts are open: finish or discard some first.",
    ),
    "backtest_running": (
        409,
        "已有一次回测在运行，请等它结束或取消它。",
        "Another backtest runs: wait for it, or cancel it.",
    ),
    "backtest_lost": (503, "回测中断了。", "The backtest was cut off."),
    "no_calls": (
        422,
        "您能看到的通话里没有符合条件的，没有可回测的通话。",
        "Among the calls that you see there are none to try it on.",
    ),
    "draft_too_long": (422, "规则包太长，最多 512 KB。", "The pack is too long: 512 KB at most."),
    "draft_refused": (422, "规则包有错误，请先改正。", "The pack has errors: correct them first."),
    "dialogues_failed": (
        422,
        "规则包自带的测试对话没有全部通过。",
        "Dialogues that the pack carries as tests fail.",
    ),
    "took_too_long": (
        422,
        "规则包太重，没能在时限内算完。",
        "The pack takes too much time or memory; it was given up.",
    ),
    "account_refused": (
        422,
        "账号不符合要求。",
        "The account is not as it has to be.",
    ),
    "token_not_made": (
        422,
        "令牌不符合要求。",
        "The token is not as it has to be.",
    ),
    "comment_too_long": (
        422,
        "文字过长，最多 2000 字，请缩短后再提交。",
        "The text is too long: 2,000 characters at most. Shorten it and send it again.",
    ),
    "whisper_too_long": (
        422,
        "耳语过长，最多 500 字。",
        "The whisper is too long: 500 characters at most.",
    ),
    "comment_empty": (422, "请先写点什么。", "Please write something first."),
    "note_too_long": (
        422,
        "备注过长，最多 4000 字，请缩短后再提交。",
        "The note is too long: 4,000 characters at most. Shorten it and send it again.",
    ),
    "reason_needed": (422, "请先写明理由。", "Please give a reason first."),
    "reason_too_long": (
        422,
        "理由过长，最多 200 字。",
        "The reason is too long: 200 characters at most.",
    ),
    "unknown_person": (
        422,
        "没有这个人，或其角色不能跟进预警。",
        "There is no such person, or their role looks after no alerts.",
    ),
    "rules_refused": (
        422,
        "规则包有错误，未予采用，原规则继续生效。",
        "The rule pack has errors and was refused; the rules in force stay.",
    ),
    "no_ice_restart": (
        422,
        "不支持 ICE 重启，请重新开始监听。",
        "ICE cannot be restarted: begin to listen anew.",
    ),
    "etag_required": (428, "需要带上会话的 ETag（If-Match）。", "Expected If-Match with the session's ETag."),
    "too_many_attempts": (429, "尝试次数过多，请一分钟后再试。", "Too many attempts; try again in a minute."),
    "too_many_whispers": (
        429,
        "这通电话的耳语过多，请稍后再发。",
        "Too many whispers to this call; try again soon.",
    ),
    "too_many_listeners": (429, "监听的人过多。", "Too many people listen."),
    "too_many_events": (
        429,
        "这通电话的事件过多，请稍后再试。",
        "Too many events of this call; try again soon.",
    ),
    "internal": (500, "服务器出错，已记录。", "Something failed on the server; it has been logged."),
    "store_unavailable": (
        503,
        "数据库暂不可用，请稍后再试。",
        "The database is away; try again soon.",
    ),
    "presence_unavailable": (
        503,
        "各网关共享的实时状态暂不可用，请稍后再试。",
        "What the gateways share is away; try again soon.",
    ),
    "busy": (503, "服务器繁忙，请稍后再试。", "The server is busy; try again soon."),
}

_BY_STATUS = {status: code for code, (status, _, _) in reversed(MESSAGES.items())}


class Problem(Exception):
    """Raise it in a route; ``code`` is one of ``MESSAGES``, ``more`` what a program needs to know besides."""

    def __init__(self, code: str, headers: Mapping[str, str] | None = None, **more: object) -> None:
        super().__init__(code)
        self.code = code
        self.headers = headers
        self.more = more


def answer(
    code: str,
    headers: Mapping[str, str] | None = None,
    status: int | None = None,
    more: Mapping[str, object] | None = None,
) -> Response:
    usual, zh, en = MESSAGES[code]
    return JSONResponse(
        {"error": {"code": code, "message": {"zh": zh, "en": en}, **(more or {})}},
        status_code=status or usual,
        headers=dict(headers or {}),
    )


def install(app: FastAPI) -> None:
    """Give every error of this application the same shape, also those that the framework raises."""

    @app.exception_handler(Problem)
    async def _problem(_request: Request, error: Problem) -> Response:
        return answer(error.code, error.headers, more=error.more)

    @app.exception_handler(DraftError)
    async def _draft(_request: Request, error: DraftError) -> Response:
        return answer(error.code)

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> Response:
        code = _BY_STATUS.get(error.status_code, "bad_request" if error.status_code < 500 else "internal")
        return answer(code, error.headers, error.status_code)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, _error: RequestValidationError) -> Response:
        return answer("invalid")  # without what was sent: it may be a password

    @app.exception_handler(StoreError)
    async def _store(request: Request, error: StoreError) -> Response:
        log.error("store unavailable", path=request.url.path, error=str(error))
        return answer("store_unavailable", {"Retry-After": "5"})

    @app.exception_handler(Exception)
    async def _internal(_request: Request, _error: Exception) -> Response:
        from app.api.guard import SECURITY_HEADERS  # this answer is made outside of the guard

        return answer("internal", SECURITY_HEADERS)
