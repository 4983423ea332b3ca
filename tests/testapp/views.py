from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from .models import Article


def save(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(Article.objects.create(title=request.GET["title"]).pk))


async def asave(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str((await Article.objects.acreate(title=request.GET["title"])).pk))


def page(request: HttpRequest) -> HttpResponse:
    return render(request, "testapp/page.html", {"topic": request.GET["topic"]})
